#!/usr/bin/env python3
"""shmdctl top on a terminal: a pseudo-terminal, what is on its screen, and what is typed.

Usage: ctl-screen.py SCENARIO shmdctl [OPTION...]; exit status 0 if it went as its name says. The terminal
understands what top uses and nothing else: an unknown sequence is a failure.
"""
import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time

PATIENCE = 20


class Terminal:
    def __init__(self, argv, rows=24, columns=80):
        self.rows, self.columns = rows, columns
        ready, told = os.pipe()
        self.leader, self.fd = pty.fork()
        if self.leader == 0:
            self.be_shell(argv, told)
        self.resize(rows, columns)
        self.pid = int(os.read(ready, 16))
        self.before = termios.tcgetattr(self.fd)
        self.alternate = False
        self.cursor = True
        self.clear()
        self.rest = b''
        self.widest = 0

    @staticmethod
    def be_shell(argv, told):
        """What a shell does: the program has a group of its own, or it could not be stopped."""
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            os.tcsetpgrp(0, os.getpid())
            signal.signal(signal.SIGTTOU, signal.SIG_DFL)
            while os.get_terminal_size(0).lines == 0:
                time.sleep(0.01)
            os.environ['TERM'] = 'xterm'
            os.execvp(argv[0], argv)
        os.write(told, b'%d' % pid)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os._exit(code if code >= 0 else 128 - code)

    def resize(self, rows, columns):
        self.rows, self.columns = rows, columns
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack('HHHH', rows, columns, 0, 0))

    def clear(self):
        self.lines, self.row, self.column = {}, 0, 0
        self.complete = False

    def take(self, data):
        data = self.rest + data
        at = 0
        while at < len(data):
            rest = data[at:]
            if rest.startswith(b'\x1b'):
                m = re.match(rb'\x1b\[([?0-9;]*)([A-Za-z])', rest)
                if not m:
                    break  # cut
                self.control(m.group(1), m.group(2))
                at += m.end()
            elif rest.startswith(b'\r'):
                self.column = 0
                at += 1
            elif rest.startswith(b'\n'):
                self.row += 1
                assert self.row < self.rows or not self.alternate, 'it scrolls'
                at += 1
            else:
                self.lines[self.row] = self.lines.get(self.row, '')[:self.column] + chr(rest[0]) + \
                    self.lines.get(self.row, '')[self.column + 1:]
                self.column += 1
                self.widest = max(self.widest, self.column)
                at += 1
        self.rest = data[at:]

    def control(self, arguments, letter):
        if letter == b'H':  # a picture begins here ...
            self.row = self.column = 0
            self.complete = False
        elif letter == b'J':  # ... and ends here
            self.complete = True
            self.lines = {n: line for n, line in self.lines.items() if n <= self.row}
            self.lines[self.row] = self.lines.get(self.row, '')[:self.column]
        elif letter == b'K':
            self.lines[self.row] = self.lines.get(self.row, '')[:self.column]
        elif letter in b'hl' and arguments == b'?1049':
            self.alternate = letter == b'h'
        elif letter in b'hl' and arguments == b'?25':
            self.cursor = letter == b'h'
        else:
            assert letter == b'm', 'unknown sequence %r %r' % (arguments, letter)

    def text(self):
        return '\n'.join(self.lines.get(n, '').rstrip() for n in range(max(self.lines, default=0) + 1))

    def until(self, condition, what):
        """Reads until there is a whole picture for which the condition holds."""
        end = time.monotonic() + PATIENCE
        while not (self.complete and condition(self)):
            assert time.monotonic() < end, 'never: %s\n%s' % (what, self.text())
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    self.take(os.read(self.fd, 65536))
                except OSError:  # the other side is closed
                    assert condition(self), 'it ended before: %s\n%s' % (what, self.text())

    def shows(self, pattern):
        self.until(lambda t: re.search(pattern, t.text(), re.M), pattern)

    def type(self, keys):
        os.write(self.fd, keys)

    def read_for(self, seconds):
        if select.select([self.fd], [], [], seconds)[0]:
            try:
                self.take(os.read(self.fd, 65536))
            except OSError:  # the other side is closed
                time.sleep(seconds)

    def ends_with(self, code):
        """It ends: with that exit status, or 128 and a signal."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            pid, status = os.waitpid(self.leader, os.WNOHANG)
            if pid:
                assert os.waitstatus_to_exitcode(status) == code, os.waitstatus_to_exitcode(status)
                self.is_given_back()
                return
            self.read_for(0.05)
        raise AssertionError('it does not end')

    def is_stopped(self):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with open('/proc/%d/stat' % self.pid) as f:
                if f.read().rsplit(')', 1)[1].split()[0] == 'T':
                    self.is_given_back()
                    return
            self.read_for(0.05)
        raise AssertionError('it does not stop')

    def is_given_back(self):
        while select.select([self.fd], [], [], 0.1)[0]:
            try:
                self.take(os.read(self.fd, 65536))
            except OSError:
                break
        assert not self.alternate and self.cursor, 'the screen is not given back'


def order(t):
    """Numbers of the regions, as they stand on the screen."""
    rows = t.text().split('REGION ', 1)[1].split('\n')[1:]
    return [int(m.group(1)) for m in (re.match(r' *([0-9]+) ', row) for row in rows) if m]


def shows(t):
    t.shows(r'^shmd [0-9.]+, up ')
    t.shows(r'^USER +BYTES +LIMIT +REGIONS +GRANTS +GRANTS/S +PEERS$')
    t.shows(r'^ *REGION OWNER +SIZE +ALLOC +GRANTS +GRANTS/S NAME$')
    t.shows(r' 64K +8\.0K +[0-9]+ +[-0-9.]+ /top-a$')
    assert t.alternate and not t.cursor
    t.shows(r' [0-9]\.[0-9] /top-a$')  # a second look has rates
    t.type(b'q')
    t.ends_with(0)


def sorts(t):
    t.shows(r'; by allocated$')
    t.shows(r' /top-b$')
    first = order(t)
    assert len(first) >= 2
    t.type(b's')
    t.shows(r'; by size$')
    by_size = order(t)
    assert by_size[0] != first[0], 'the largest is not the one with most memory'
    t.type(b'r')
    t.shows(r'; by size, reversed$')
    assert order(t) == by_size[::-1]
    t.type(b'r\x1b[D')
    t.shows(r'; by allocated$')
    assert order(t) == first
    t.type(b'\x1b[C')
    t.shows(r'; by size$')
    t.type(b'\x1bOD\x1b[D')
    t.shows(r'; by name$')
    t.type(b'\x03')
    t.ends_with(128 + signal.SIGINT)


def resizes(t):
    t.shows(r' /top-b$')
    t.resize(5, 30)
    t.until(lambda t: len(t.text().split('\n')) <= 5, 'five lines')
    t.widest = 0
    t.type(b'r')
    t.shows(r'^shmd ')
    t.type(b' ')
    t.shows(r'^USER ')
    assert t.widest <= 30, 'a line of %d columns' % t.widest
    t.resize(24, 80)
    t.shows(r' /top-b$')
    os.kill(t.pid, signal.SIGTERM)
    t.ends_with(128 + signal.SIGTERM)


def stops(t):
    t.shows(r' /top-a$')
    t.type(b'\x1a')
    t.is_stopped()
    os.kill(t.pid, signal.SIGCONT)
    t.until(lambda t: t.alternate, 'the screen again')
    t.shows(r' /top-a$')
    t.type(b'\x1a')
    t.is_stopped()
    os.kill(t.pid, signal.SIGCONT)
    t.shows(r' /top-a$')
    t.type(b'q')
    t.ends_with(0)


def ends(t):
    """With --iterations, by itself."""
    t.shows(r' /top-a$')
    t.ends_with(0)


def returns(t):
    """With the numbers of a keeper and its broker: it stays while there is none, and goes on after."""
    keeper, broker = int(os.environ['KEEPER']), int(os.environ['BROKER'])
    t.shows(r'; by allocated$')
    os.kill(keeper, signal.SIGSTOP)
    os.kill(broker, signal.SIGKILL)
    t.shows(r'^The broker is gone; waiting for it to come back\.$')
    t.type(b's')
    t.shows(r'; by size$')
    os.kill(keeper, signal.SIGCONT)
    t.until(lambda t: 'is gone' not in t.text(), 'the broker')
    t.shows(r'; by size$')
    t.type(b'q')
    t.ends_with(0)


def main():
    scenario = {f.__name__: f for f in (shows, sorts, resizes, stops, ends, returns)}[sys.argv[1]]
    terminal = Terminal(sys.argv[2:])
    try:
        scenario(terminal)
    except AssertionError as e:
        print(e, file=sys.stderr)
        print(terminal.text(), file=sys.stderr)
        raise
    finally:
        try:
            os.kill(terminal.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


main()
