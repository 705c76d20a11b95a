"""Files that replace others as a whole: a reader sees the old content or the new one, whatever stops the writer."""

from arlm.storage.lock import FolderLock
from arlm.storage.replace import remove_abandoned, replace_file, replacing, sync_folder

__all__ = ["FolderLock", "remove_abandoned", "replace_file", "replacing", "sync_folder"]
