"""Which file systems are held still, and in which order."""

from pathlib import Path

from luod.kernel import filesystems
from luod.kernel.filesystems import files_under, mount_of, mounts, to_hold_still

MOUNTINFO = """\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
23 22 0:21 / /proc rw,nosuid - proc proc rw
24 22 0:22 / /run rw,nosuid - tmpfs tmpfs rw,size=1000k
25 22 254:2 / /boot rw,relatime - ext4 /dev/vda2 rw
26 25 254:3 / /boot/efi rw,relatime - vfat /dev/vda3 rw,fmask=0077
27 22 0:40 /@home /home rw,relatime - btrfs /dev/vdb rw,subvolid=256
28 22 0:40 /@srv /srv rw,relatime - btrfs /dev/vdb rw,subvolid=257
29 22 254:1 /var/old /mnt/with\\040space\\134 ro,relatime - ext4 /dev/vda1 rw
30 27 7:0 / /home/image rw,relatime - ext4 /dev/loop0 rw
31 30 7:1 / /media/inner rw - xfs /dev/mapper/inner rw
32 22 254:4 / /cdrom rw - iso9660 /dev/sr0 ro
33 22 0:41 / /net rw - nfs4 server:/export rw
34 22 0:42 / /merged rw - overlay overlay rw,upperdir=/home/u
"""

FILES = {"7:0": ["/home/disk.img"], "7:1": ["/home/image/disk.img"]}


def there(tmp_path, text=MOUNTINFO):
    file = tmp_path / "mountinfo"
    file.write_text(text)
    return mounts(file)


def points(found):
    return [system.point for system in found]


def test_those_on_disks_that_can_be_written_to_and_a_file_system_before_the_one_that_has_its_disk(tmp_path):
    found = to_hold_still(there(tmp_path), lambda device: FILES.get(device, []))
    assert points(found) == ["/media/inner", "/home/image", "/boot/efi", "/boot", "/srv", "/"]


def test_each_is_there_once_wherever_it_is_mounted(tmp_path):
    *_, root = to_hold_still(there(tmp_path), lambda device: [])
    assert [mount.point for mount in root.mounts] == ["/", "/mnt/with space\\"]
    assert root.writable


def test_a_path_is_on_what_is_mounted_deepest_above_it_and_last(tmp_path):
    found = there(tmp_path, f"{MOUNTINFO}35 22 0:50 / /home rw - tmpfs tmpfs rw\n")
    places = ("/run/luod", "/runner", "/home/u", "/boot/efi")
    assert [mount_of(found, Path(path)).kind for path in places] == ["tmpfs", "ext4", "tmpfs", "vfat"]
    assert mount_of([], Path("/")) is None


def test_a_root_whose_disk_is_a_file_of_another_comes_before_that(tmp_path):
    text = """\
1 0 7:0 / / rw - ext4 /dev/loop0 rw
2 1 8:1 / /run/medium rw - ext4 /dev/sda1 rw
3 1 8:2 / /home rw - ext4 /dev/sda2 rw
"""
    found = to_hold_still(there(tmp_path, text), lambda device: ["/run/medium/root"] if device == "7:0" else [])
    assert points(found) == ["/", "/run/medium", "/home"]


def test_the_files_that_a_disk_is_made_of_are_found_through_partitions_and_what_maps_them(tmp_path):
    devices = tmp_path / "devices"
    for name, number in (("loop0", "7:0"), ("loop0/loop0p1", "259:0"), ("dm-0", "253:0"), ("sda", "8:0")):
        (devices / name).mkdir(parents=True)
        link = tmp_path / "dev" / "block" / number
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(devices / name)
    (devices / "loop0" / "loop").mkdir()
    (devices / "loop0" / "loop" / "backing_file").write_text("/var/disk.img\n")
    (devices / "loop0" / "loop0p1" / "partition").write_text("1\n")
    (devices / "dm-0" / "slaves").mkdir()
    (devices / "dm-0" / "slaves" / "loop0p1").symlink_to(devices / "loop0" / "loop0p1")
    assert [list(files_under(number, tmp_path)) for number in ("7:0", "259:0", "253:0", "8:0", "0:40")] == [
        *[["/var/disk.img"]] * 3,
        *[[]] * 2,
    ]


def test_this_machines_own_are_read():
    found = mounts()
    assert "/proc" in [mount.point for mount in found]
    for system in to_hold_still(found):
        fd = filesystems.opened(system)
        if fd is not None:
            with fd:
                assert Path(f"/proc/self/fd/{fd.fileno()}").readlink() in {Path(m.point) for m in system.mounts}
