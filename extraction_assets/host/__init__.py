"""What the host offers, looked at with care: files, disks, devices, and which process is which."""
