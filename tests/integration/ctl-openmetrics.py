#!/usr/bin/env python3
"""Is standard input OpenMetrics 1.0 text, to the letter?

Strict where collectors are lenient: the order of metadata, one block for each family, the
suffixes each type allows, escaping, canonical histograms (cumulative, ended by +Inf, with a
count that is the last bucket), no sample twice, a line feed after everything, # EOF last.

With --test it checks itself instead: a good text must pass, and each of its damaged copies must
not. Exit status 0, or 1 with the first mistake on standard error.
"""

import math
import re
import sys

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\Z|[+-]?Inf\Z|NaN\Z")
SUFFIXES = {
    "gauge": {""},
    "counter": {"_total", "_created"},
    "histogram": {"_bucket", "_count", "_sum", "_created"},
    "info": {"_info"},
    "unknown": {""},
}


class Mistake(Exception):
    pass


def require(condition, what):
    if not condition:
        raise Mistake(what)


def unescape(text):
    """Only \\\\, \\n and \\" are escapes; a bare quote or line feed is a mistake."""
    out, i = [], 0
    while i < len(text):
        c = text[i]
        require(c not in '"\n', f"unescaped {c!r} in {text!r}")
        if c == "\\":
            i += 1
            require(i < len(text) and text[i] in '\\n"', f"bad escape in {text!r}")
            c = {"\\": "\\", "n": "\n", '"': '"'}[text[i]]
        out.append(c)
        i += 1
    return "".join(out)


def parse_labels(text):
    labels, at = {}, 0
    pattern = re.compile(r'([^=,{}"]+)="((?:[^"\\\n]|\\.)*)"(,|\Z)')
    while at < len(text):
        match = pattern.match(text, at)
        require(match, f"labels {text!r}")
        name, value, end = match.groups()
        require(LABEL_NAME.match(name), f"label name {name!r}")
        require(name not in labels, f"label {name} twice")
        labels[name] = unescape(value)
        at = match.end()
        require(end != "," or at < len(text), f"comma at the end of {text!r}")
    return labels


def parse_number(text):
    require(NUMBER.match(text), f"value {text!r}")
    return float(text)


def parse_sample(line):
    match = re.match(r"([^ {]+)(?:\{(.*)\})? ([^ ]+)\Z", line)
    require(match, f"sample {line!r}")
    name, labels, value = match.groups()
    require(NAME.match(name), f"sample name {name!r}")
    require(labels != "", f"empty braces in {line!r}")
    return name, parse_labels(labels or ""), parse_number(value)


class Family:
    def __init__(self, name):
        self.name, self.type, self.unit, self.help = name, None, None, None
        self.samples = []

    def metadata(self, keyword, text):
        require(not self.samples, f"# {keyword} of {self.name} after its samples")
        require(getattr(self, keyword.lower()) is None, f"# {keyword} of {self.name} twice")
        if keyword == "TYPE":
            require(text in SUFFIXES, f"type {text!r}")
        elif keyword == "UNIT":
            require(text and self.name.endswith("_" + text), f"{self.name} does not end in its unit {text!r}")
        else:
            unescape(text)
        setattr(self, keyword.lower(), text)

    def owns(self, sample_name):
        return sample_name.startswith(self.name) and sample_name[len(self.name):] in SUFFIXES[self.type or "unknown"]

    def check(self):
        require(self.type, f"{self.name} has no # TYPE")
        require(self.help, f"{self.name} has no # HELP")
        seen = set()
        for name, labels, value in self.samples:
            key = (name, tuple(sorted(labels.items())))
            require(key not in seen, f"sample {key} twice")
            seen.add(key)
            if self.type == "counter":
                require(value >= 0 and not math.isinf(value), f"counter {name} is {value}")
            if self.type == "info":
                require(value == 1, f"info {name} is {value}")
        if self.type == "histogram":
            self.check_histograms()

    def check_histograms(self):
        groups = {}
        for name, labels, value in self.samples:
            rest = tuple(sorted((k, v) for k, v in labels.items() if k != "le"))
            group = groups.setdefault(rest, {"buckets": [], "count": None, "sum": None})
            suffix = name[len(self.name):]
            if suffix == "_bucket":
                require("le" in labels, f"a bucket of {self.name} without le")
                group["buckets"].append((parse_number(labels["le"]), value))
            else:
                require("le" not in labels, f"{name} with le")
                group[suffix[1:]] = value
        for rest, group in groups.items():
            edges = [edge for edge, _ in group["buckets"]]
            counts = [count for _, count in group["buckets"]]
            require(edges and edges[-1] == math.inf, f"{self.name}{rest} does not end with +Inf")
            require(edges == sorted(set(edges)), f"{self.name}{rest}: edges out of order")
            require(counts == sorted(counts), f"{self.name}{rest} is not cumulative")
            require(group["count"] == counts[-1], f"{self.name}{rest}: count is not the last bucket")
            require(group["sum"] is not None and group["sum"] >= 0, f"{self.name}{rest} has no sum")
            require(counts[-1] > 0 or group["sum"] == 0, f"{self.name}{rest}: a sum of nothing")


def check(text):
    """Returns the families by name, or raises Mistake."""
    require(text.endswith("\n# EOF\n") or text == "# EOF\n", "the text does not end with # EOF and a line feed")
    families, current = {}, None
    for line in text.split("\n")[:-2]:
        require(line and line == line.strip() and "\r" not in line, f"line {line!r}")
        if line.startswith("#"):
            match = re.match(r"# (TYPE|UNIT|HELP) ([^ ]+) (.*)\Z", line)
            require(match, f"comment {line!r}")
            keyword, name, rest = match.groups()
            require(NAME.match(name), f"family {name!r}")
            if not current or current.name != name:
                require(name not in families, f"family {name} in two places")
                current = families[name] = Family(name)
            current.metadata(keyword, rest)
        else:
            name, labels, value = parse_sample(line)
            require(current and current.owns(name), f"sample {name} does not belong to the family before it")
            current.samples.append((name, labels, value))
    taken = {}
    for family in families.values():
        family.check()
        for suffix in SUFFIXES[family.type] | {""}:
            name = family.name + suffix
            require(name not in taken, f"{family.name} and {taken.get(name)} both may have {name}")
            taken[name] = family.name
    return families


GOOD = """\
# TYPE a_bytes gauge
# UNIT a_bytes bytes
# HELP a_bytes What a \\"thing\\" takes.
a_bytes{who="x\\\\y",where="\\n"} 12
a_bytes{who="z"} +Inf
# TYPE b counter
# HELP b Things.
b_total 3
# TYPE c_seconds histogram
# UNIT c_seconds seconds
# HELP c_seconds Time.
c_seconds_bucket{le="1.024e-06"} 1
c_seconds_bucket{le="0.5"} 1
c_seconds_bucket{le="+Inf"} 4
c_seconds_count 4
c_seconds_sum 1.5
# TYPE d info
# HELP d Version.
d_info{version="1"} 1
# EOF
"""

DAMAGE = [
    ("# EOF\n", ""),
    ("# EOF\n", "# EOF"),
    ("# EOF\n", "# EOF\n\n"),
    ("b_total 3", "b 3"),
    ("b_total 3", "b_total -3"),
    ("b_total 3", "b_total 3 "),
    ("b_total 3", "b_total  3"),
    ("b_total 3", "b_total three"),
    ("b_total 3", "b_total{} 3"),
    ("b_total 3", "b_total 3\nb_total 3"),
    ("b_total 3", "b_total 3\r"),
    ("b_total 3", "b_total 3\n"),
    ("b_total 3", "e_total 3"),
    ("# TYPE b counter\n", ""),
    ("# TYPE b counter", "# TYPE b meter"),
    ("# TYPE b counter", "# TYPE b counter\n# TYPE b counter"),
    ("# TYPE b counter", "# TYPE a_bytes_total counter"),
    ("# HELP b Things.\n", ""),
    ("b_total 3\n", "b_total 3\n# HELP b Things.\n"),
    ("# HELP b Things.", "#HELP b Things."),
    ("# HELP b Things.", '# HELP b "Things".'),
    ("# UNIT a_bytes bytes", "# UNIT a_bytes seconds"),
    ('where="\\n"', 'where="\\t"'),
    ('where="\\n"', 'where="a"b"'),
    ('where="\\n"', "where=x"),
    ('where="\\n"', 'who="y"'),
    ('where="\\n"', '1where="y"'),
    ('where="\\n"', 'where="y",'),
    ('{le="+Inf"} 4', '{le="+Inf"} 0'),
    ('{le="+Inf"} 4', '{le="2"} 4'),
    ('{le="0.5"}', '{le="1e-07"}'),
    ('{le="0.5"}', '{le="half"}'),
    ('{le="0.5"}', '{notle="0.5"}'),
    ("_count 4", "_count 5"),
    ("c_seconds_sum 1.5\n", ""),
    ("# TYPE d info", "# TYPE a_bytes gauge"),
    ("d_info{", "d{"),
    ('d_info{version="1"} 1', 'd_info{version="1"} 2'),
]


def check_itself():
    check(GOOD)
    check("# EOF\n")
    for before, after in DAMAGE:
        damaged = GOOD.replace(before, after, 1)
        require(damaged != GOOD, f"{before!r} damages nothing")
        try:
            check(damaged)
        except Mistake:
            continue
        raise Mistake(f"{before!r} for {after!r} goes unnoticed")


def main():
    try:
        if sys.argv[1:] == ["--test"]:
            check_itself()
        else:
            check(sys.stdin.buffer.read().decode("utf-8"))
    except (Mistake, UnicodeDecodeError) as mistake:
        print(f"ctl-openmetrics: {mistake}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
