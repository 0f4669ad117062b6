#!/usr/bin/env python3
"""Runs a command of the shell on a pseudo-terminal of 24 rows and 80 columns, where nobody types.

Usage: ctl-terminal.py COMMAND; what the terminal was sent is written to standard output, to its last byte, and
the exit status is the command's, or 128 and the number of the signal that ended it.
"""
import fcntl
import os
import struct
import sys
import termios


def login(fd):
    os.setsid()
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
    for n in 0, 1, 2:
        os.dup2(fd, n)


def main():
    leader, follower = os.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 80, 0, 0))
    pid = os.fork()
    if pid == 0:
        os.close(leader)
        login(follower)
        os.execlp('sh', 'sh', '-c', sys.argv[1])
    os.close(follower)
    while True:
        try:
            data = os.read(leader, 65536)
        except OSError:  # nobody has the other side any more
            break
        if not data:
            break
        sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    sys.exit(code if code >= 0 else 128 - code)


main()
