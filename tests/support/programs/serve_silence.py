"""Mount a FUSE file system that takes every request and answers none, until standard input ends.

Usage: PLACE UID DEVICE. PLACE is a folder or a file, DEVICE a descriptor of /dev/fuse. It is
mounted as a user's own program would do it with `allow_other`; "mounted" is printed then. A process
that asks it for anything sleeps past SIGKILL.
"""

import ctypes
import os
import select
import stat
import struct
import sys

# struct fuse_in_header, fuse_init_in, fuse_out_header and fuse_init_out of linux/fuse.h
_REQUEST = struct.Struct("=IIQQIIIHH")
_ANSWER = struct.Struct("=IiQ")
_INIT_OUT = struct.Struct("=IIIIHHIIHHI28x")
_INIT, _MAJOR, _MINOR = 26, 7, 31
_MOST_BYTES = 1 << 20
_MS_NOSUID, _MS_NODEV = 2, 4


def main() -> None:
    place, uid, device = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    kind = stat.S_IFMT(os.stat(place).st_mode)
    options = f"fd={device},rootmode={kind:o},user_id={uid},group_id=0,allow_other"
    libc = ctypes.CDLL(None, use_errno=True)
    words = (b"silence", place.encode(), b"fuse", _MS_NOSUID | _MS_NODEV, options.encode())
    if libc.mount(*words):
        raise OSError(ctypes.get_errno(), "mount", place)
    print("mounted", flush=True)
    while sys.stdin not in select.select([device, sys.stdin], [], [])[0]:
        request = os.read(device, _MOST_BYTES)
        _, opcode, unique, *_ = _REQUEST.unpack_from(request)
        if opcode == _INIT:
            readahead, background = 0, 12
            init = _INIT_OUT.pack(_MAJOR, _MINOR, readahead, 0, background, 9, 1 << 12, 1, 0, 0, 0)
            os.write(device, _ANSWER.pack(_ANSWER.size + len(init), 0, unique) + init)


if __name__ == "__main__":
    main()
