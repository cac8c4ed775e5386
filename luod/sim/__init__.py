"""A simulated kernel with the manners of Linux's Live Update Orchestrator, for tests and for client authors.

It is a process of its own: `python -m luod.sim` serves, `luod.sim.client.SimKernel(path)` is the kernel behind its
socket, `luod.sim.client.Control(path)` makes it kexec and fail, and `luod.sim.process.simulator(path)` runs one for
the length of a `with` block. `luod.sim.client.SimMachine(path)` loads the next kernel and goes into it, which ends the
process that does; `luod.sim.image.bzimage()` is what it can go into. Nothing outlives the simulator's process: it keeps
descriptors, and so files, as a kernel does.

Its rules are those of Linux 7.3 (kernel/liveupdate/, mm/memfd_luo.c). What a process can't do:

- After PRESERVE_FD the kernel refuses to change the file's size, to write beyond its end and to fallocate (EPERM).
  Here all of them work; the next kernel gets the size as it was at PRESERVE_FD.
- After PRESERVE_FD the kernel refuses to add F_SEAL_WRITE, or F_SEAL_EXEC to an executable file (EBUSY), for the
  pages are pinned. Here they are added.
- A file's last page comes over whole, with what a mapping wrote beyond the file's end. Here that is zero.
- The kernel makes a file anew at RETRIEVE_FD, and charges its caller. Here that is done at kexec, and an error
  then (ENOMEM, ENOSPC) is what RETRIEVE_FD answers for ever. Memory is the simulator's and its clients' own.
- No call is interrupted or runs beside another one: PRESERVE_FD of a huge sparse file stalls all. `Control.delay`
  doesn't.
- A process of the old kernel lives on after kexec. Its descriptors answer ENODEV, its copies of preserved files
  are no longer those that came over.
- What the next kernel takes over is told by the names in its image and by its command line alone. Where a real one
  would panic, a simulated one has nothing.
- A retrieved file is "/ (deleted)" in /proc/self/fd. Here it is "/memfd: (deleted)".
- A session's descriptor is a socket: /proc/self/fd doesn't show the session's name, and other calls than LUO's
  answer as a socket does. A LUO call on a descriptor that is no session answers ENOTTY, as it should.
- Limits on sessions and files (ENOSPC) are those of 7.3: none but memory.
"""
