"""Where frames enter: files, folders, cameras and streams."""
