"""The kernel's side: LUO's numbers, what a kernel can be asked, and the real one."""
