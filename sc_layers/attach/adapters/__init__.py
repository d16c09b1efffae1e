"""What attaching needs to know about each code base, and about modules of no known one."""
