"""Types at a bash of a user, presses TAB, and sees what becomes of the line."""

import os
import pty
import pwd
import select
import sys
import time

user, typed, expected = sys.argv[1:]
entry = pwd.getpwnam(user)

pid, terminal = pty.fork()
if pid == 0:
    os.setgid(entry.pw_gid)
    os.initgroups(user, entry.pw_gid)
    os.setuid(entry.pw_uid)
    os.chdir(entry.pw_dir)
    environment = {
        "HOME": entry.pw_dir,
        "USER": user,
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "XDG_RUNTIME_DIR": f"/run/user/{entry.pw_uid}",
    }
    os.execve("/bin/bash", ["bash", "-i"], environment)

shown = ""


def wait_for(text):
    global shown
    deadline = time.monotonic() + 20
    while text not in shown:
        if time.monotonic() > deadline:
            sys.exit(f"typed {typed!r} and a tab; no {text!r} in {shown!r}")
        if select.select([terminal], [], [], 0.1)[0]:
            shown += os.read(terminal, 4096).decode(errors="replace")


wait_for("$ ")
shown = ""
os.write(terminal, typed.encode() + b"\t")
wait_for(expected)
