"""What people look at: images, attention maps, HTML pages, one view for each domain."""
