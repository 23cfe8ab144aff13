"""Virtual machines for the lab: their root file system, disk image, kernel and initramfs."""
