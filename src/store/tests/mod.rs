//! Tests that need the seam to the file system: recorded, failing and power-cut disks.
