"""The host: its files, disks, devices and processes."""
