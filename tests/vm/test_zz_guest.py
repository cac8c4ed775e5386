import os,re,sys,shutil
import pytest
from pathlib import Path
from vm.cache import cache
from vm.kernels import kernels
from vm.machine import Machine
from vm.rootfs import luod_disk, root
def test_it():
    ks=kernels()
    images=ks[-1].images
    for k in ks: images |= {f"{k.number}/{f.name}": f for f in (k.image,*k.selftests.iterdir())}
    suite=os.environ.get("SUITE","unstable")
    system=root(suite)
    disks=[system/"disk", luod_disk(system, images)]
    logs=Path("/tmp/ap/guestlog"); shutil.rmtree(logs,ignore_errors=True)
    with Machine(ks[-1].image,disks,logs) as vm:
        args=os.environ.get("ARGS","-q /opt/luod/tests/network").split()
        r=vm.start("python3","-m","pytest","-p","no:cacheprovider",*args).ended()
        print(r.stdout[-int(os.environ.get("N","20000")):], r.stderr[-3000:])
        if os.environ.get("CMD"):
            r=vm.start("sh","-c",os.environ["CMD"]).ended(); print(r.stdout,r.stderr)
