"""What the host offers, looked at with care: files, disks, devices."""
