#!/usr/bin/env python3
"""Drafts the expected-verdict files of the captures in this folder and in gpl/.

Two readings of every INVITE are made and compared:
  raw     this file's own reading of the bytes, by the rules in README.md;
  tshark  what tshark's dissectors say of the same frame.
The raw reading is what is written, because tshark is no oracle everywhere
(README.md tells where). Every row on which the two differ was decided by reading
the frame, and has a comment above it in the expected file. Nothing here shares
code with the gate: that is the point of it.

  derive.py                 write the expected files (comments that are there stay)
  derive.py --check         compare the files with a new draft, comments aside; exit 1 on a difference
  derive.py --differences   print the rows on which raw reading and tshark differ
  derive.py --show FILE N   print the bytes of the INVITE in frame N
Options may be followed by capture files; without any, all captures are taken.

Needs python3 (3.9 or later, standard library only); --differences and --check also need
tshark 4.0 (`--check --no-tshark` does without it).
"""
import re
import struct
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
HEADER = "frame\ttransport\tto_tag\tcaller\treason"
DEFAULT_PORTS = frozenset({5060})
READABLE = 3520         # bytes of a frame that can be read: a page less head- and tailroom
ETHERNET_HEADER = 14    # frames of other link types are judged behind a made-up Ethernet header
COUNTRY_CODE = "62"
CAPTURE_SUFFIXES = (".pcap", ".pcapng", ".cap", ".fuzzed")


# ---------------------------------------------------------------- capture files

def frames(path):
    """Yields (frame number, link type, captured bytes); stops where the file is cut."""
    data = path.read_bytes()
    magic = data[:4]
    record = 16
    if magic == b"\x0a\x0d\x0d\x0a":
        yield from pcapng_frames(data)
        return
    if magic in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1"):
        order = "<"
    elif magic in (b"\xa1\xb2\xc3\xd4", b"\xa1\xb2\x3c\x4d"):
        order = ">"
    elif magic == b"\x34\xcd\xb2\xa1":     # "modified" pcap of old Linux: 8 more bytes a record
        order, record = "<", 24
    else:
        raise SystemExit(f"{path}: neither pcap nor pcapng")
    link = struct.unpack_from(order + "I", data, 20)[0] & 0x0FFFFFFF
    at, number = 24, 0
    while at + record <= len(data):
        captured = struct.unpack_from(order + "I", data, at + 8)[0]
        at += record
        if at + captured > len(data):
            return
        number += 1
        yield number, link, data[at:at + captured]
        at += captured


def pcapng_frames(data):
    at, number, links, order = 0, 0, [], "<"
    while at + 12 <= len(data):
        kind = struct.unpack_from("<I", data, at)[0]
        if kind == 0x0A0D0D0A:
            order = "<" if data[at + 8:at + 12] == b"\x4d\x3c\x2b\x1a" else ">"
            links = []
        kind, length = struct.unpack_from(order + "II", data, at)
        if length < 12 or at + length > len(data):
            return
        body = data[at + 8:at + length - 4]
        if kind == 1:
            links.append(struct.unpack_from(order + "H", body)[0])
        elif kind == 6:
            interface, _, _, captured, _ = struct.unpack_from(order + "IIIII", body)
            number += 1
            yield number, links[interface], body[20:20 + captured]
        elif kind == 3:
            number += 1
            yield number, links[0], body[4:4 + struct.unpack_from(order + "I", body)[0]]
        at += length


# ---------------------------------------------------------------- link, network, transport

class Packet:
    """An UDP or TCP packet: transport, ports, payload as far as it lies in the frame."""

    def __init__(self, transport, source, destination, payload, fault, fragment, offset):
        self.transport = transport
        self.source = source
        self.destination = destination
        self.payload = payload
        self.fault = fault          # None, "bad-packet" or "length-mismatch"
        self.fragment = fragment    # a first fragment
        self.offset = offset        # where the payload begins in the frame that is judged


def network_layer(link, frame):
    """(ether type, IP bytes, their offset in the judged Ethernet frame), or None."""
    if link == 1:
        at = 12
        for _ in range(3):
            kind = int.from_bytes(frame[at:at + 2], "big")
            at += 2
            if kind not in (0x8100, 0x88A8):
                return kind, frame[at:], at
            at += 2
        return None
    if link == 113:
        return int.from_bytes(frame[14:16], "big"), frame[16:], ETHERNET_HEADER
    if link == 276:
        return int.from_bytes(frame[0:2], "big"), frame[20:], ETHERNET_HEADER
    if link in (12, 101, 228, 229):
        packet = frame
    elif link in (0, 108):
        packet = frame[4:]
    else:
        raise SystemExit(f"unknown link type {link}")
    if not packet:
        return None
    return {4: 0x0800, 6: 0x86DD}.get(packet[0] >> 4, 0), packet, ETHERNET_HEADER


def packet_of(link, frame):
    """The UDP or TCP packet that begins in this frame, or None."""
    layer = network_layer(link, frame)
    if layer is None:
        return None
    kind, ip, offset = layer
    fault, more, whole = None, False, True
    if kind == 0x0800 and len(ip) >= 20 and ip[0] >> 4 == 4:
        header = (ip[0] & 15) * 4
        total = int.from_bytes(ip[2:4], "big")
        flags = int.from_bytes(ip[6:8], "big")
        if flags & 0x1FFF:
            return None
        more, protocol = bool(flags & 0x2000), ip[9]
        if header < 20 or total < header or total > len(ip):
            fault = "bad-packet"
        else:
            ip = ip[:total]
        at = header
    elif kind == 0x86DD and len(ip) >= 40 and ip[0] >> 4 == 6:
        total = 40 + int.from_bytes(ip[4:6], "big")
        if total > len(ip):
            fault = "bad-packet"
        else:
            ip = ip[:total]
        protocol, at = ip[6], 40
        while protocol in (0, 43, 44, 60):
            if at + 8 > len(ip):
                return None
            if protocol == 44:
                word = int.from_bytes(ip[at + 2:at + 4], "big")
                if word >> 3:
                    return None
                more = bool(word & 1)
                protocol, at = ip[at], at + 8
            else:
                protocol, at = ip[at], at + (ip[at + 1] + 1) * 8
    else:
        return None
    segment = ip[at:]
    if protocol == 17 and len(segment) >= 8:
        source, destination, length = struct.unpack_from(">HHH", segment)
        payload = segment[8:]
        if fault is None:
            if length < 8:
                fault = "length-mismatch"
            elif not more and length != len(segment):
                fault = "length-mismatch"
            elif more and length < len(segment):
                fault = "length-mismatch"
        return Packet("udp", source, destination, payload, fault, more, offset + at + 8)
    if protocol == 6 and len(segment) >= 20:
        source, destination = struct.unpack_from(">HH", segment)
        header = (segment[12] >> 4) * 4
        return Packet("tcp", source, destination, segment[header:], fault, more, offset + at + header)
    return None


# ---------------------------------------------------------------- SIP, read from the bytes

class Verdict(Exception):
    """Ends the reading: the reason is known."""


TOKEN = rb"[A-Za-z0-9\-.!%*_+`'~]+"
LEADING = re.compile(rb"(?:\r\n)*")


def starts_invite(payload):
    body = payload[LEADING.match(payload).end():]
    return body.startswith(b"INVITE ") and b"SIP/" in re.split(rb"[\r\n]", body, maxsplit=1)[0]


def header_lines(message):
    """The header fields as (name, unfolded value); raises Verdict where a line breaks the grammar."""
    end_of_start = re.search(rb"[\r\n]", message)
    if end_of_start is None:
        raise Verdict("headers-cut")
    line = message[:end_of_start.start()]
    if not re.fullmatch(rb"INVITE [^ \t\x00-\x1f\x7f]+ (?i:SIP)/2\.0", line):
        raise Verdict("bad-request-line")
    at = end_of_start.start()
    if message[at:at + 2] != b"\r\n":
        raise Verdict("headers-cut" if message[at:] == b"\r" else "bad-request-line")
    at += 2
    fields = []
    while True:
        if message[at:at + 2] == b"\r\n":
            return fields
        stop = re.compile(rb"[\r\n]").search(message, at)
        line = message[at:stop.start() if stop else len(message)]
        if line[:1] in (b" ", b"\t"):
            if not fields:
                raise Verdict("bad-header")
            fields[-1][1] += b" " + line
        else:
            named = re.match(rb"(" + TOKEN + rb")[ \t]*:", line)
            if named:
                fields.append([named.group(1).lower(), line[named.end():]])
            elif stop is not None:
                raise Verdict("bad-header")
            elif line and not re.fullmatch(TOKEN + rb"[ \t]*", line):
                raise Verdict("bad-header")
        if stop is None:
            raise Cut(fields)
        at = stop.start()
        if message[at:at + 2] != b"\r\n":
            if message[at:] == b"\r":
                raise Cut(fields)
            raise Verdict("bad-header")
        at += 2


class Cut(Exception):
    """The readable part ends within the headers; holds the fields read so far."""

    def __init__(self, fields):
        super().__init__("cut")
        self.fields = fields


COMPACT = {b"f": b"from", b"t": b"to", b"i": b"call-id"}


def quoted_end(text, at):
    """The index after the quoted string that begins at `at`."""
    at += 1
    while at < len(text):
        if text[at] == 0x5C:
            at += 2
        elif text[at] == 0x22:
            return at + 1
        else:
            at += 1
    raise Verdict("bad-header")


def name_addr(value):
    """(URI, header parameters as (name, value)) of a From or To value."""
    if re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", value):
        raise Verdict("bad-header")
    text = value.strip(b" \t")
    at = 0
    bare = re.match(rb"[A-Za-z][A-Za-z0-9+\-.]*:", text)
    if bare:
        at = re.compile(rb"[ \t;,<>\"]|$").search(text).start()
        uri = text[:at]
    else:
        if text[:1] == b'"':
            at = quoted_end(text, 0)
            rest = text[at:].lstrip(b" \t")
            if rest[:1] != b"<":
                raise Verdict("bad-header")
            at = len(text) - len(rest)
        elif text[:1] != b"<":
            at = text.find(b"<")
            name = text if at < 0 else text[:at]
            if re.search(rb'[@:,;>=\\"]', name):
                raise Verdict("bad-header")
            if at < 0:
                return None, []
        end = text.find(b">", at)
        if end < 0:
            raise Verdict("bad-header")
        uri = text[at + 1:end]
        if re.search(rb"[ \t<\"]", uri):
            raise Verdict("bad-header")
        at = end + 1
    if uri.count(b"@") > 1:
        raise Verdict("bad-header")
    parameters, current = [], bytearray()
    rest = text[at:]
    at = 0
    if rest.strip(b" \t") and not rest.lstrip(b" \t").startswith(b";"):
        raise Verdict("bad-header")
    while at < len(rest):
        byte = rest[at]
        if byte == 0x22:
            end = quoted_end(rest, at)
            current += rest[at:end]
            at = end
            continue
        if byte in b",<>":
            raise Verdict("bad-header")
        if byte == 0x3B:
            parameters.append(bytes(current))
            current = bytearray()
        else:
            current.append(byte)
        at += 1
    parameters.append(bytes(current))
    pairs = []
    for parameter in parameters[1:]:
        name, _, content = parameter.partition(b"=")
        pairs.append((name.strip(b" \t").lower(), content.strip(b" \t")))
    return uri, pairs


def has_tag(parameters):
    return any(name == b"tag" and content for name, content in parameters)


def percent_decoded(text):
    def one(match):
        return bytes([int(match.group(1), 16)])
    if re.search(rb"%(?![0-9A-Fa-f]{2})", text):
        raise Verdict("not-a-number")
    return re.sub(rb"%([0-9A-Fa-f]{2})", one, text)


def number_of_uri(uri):
    """The canonical number of a URI under the default plan; raises Verdict with the reason."""
    scheme, colon, rest = uri.partition(b":")
    scheme = scheme.lower()
    if not colon or scheme not in (b"sip", b"sips", b"tel"):
        raise Verdict("no-number-uri")
    context = None
    if scheme == b"tel":
        user = rest
    else:
        user, at, _ = rest.partition(b"@")
        if not at:
            raise Verdict("no-user")
    for parameter in user.split(b";")[1:]:
        name, _, content = parameter.partition(b"=")
        if name.lower() == b"phone-context":
            context = percent_decoded(content).decode("latin-1")
    user = re.split(rb"[;:]", user)[0]
    if not user:
        raise Verdict("no-user")
    return number_of_text(percent_decoded(user).decode("latin-1"), context)


def number_of_text(text, context=None):
    digits = re.sub(r"[-.()]", "", text)
    if not re.fullmatch(r"\+?[0-9]+", digits):
        raise Verdict("not-a-number")
    if digits[0] == "+":
        digits = digits[1:]
        if len(digits) > 15:
            raise Verdict("too-many-digits")
        if digits[0] == "0" or digits.startswith(COUNTRY_CODE + "0"):
            raise Verdict("ambiguous-number")
        if len(digits) < 7 and not digits.startswith(COUNTRY_CODE):
            raise Verdict("ambiguous-number")
        return digits
    if context is not None:
        raise SystemExit("phone-context: write its rule here when a capture has one")
    if digits[0] == "0":
        rest = digits[1:]
        if not rest or rest[0] == "0":
            raise Verdict("ambiguous-number")
        if len(rest) + len(COUNTRY_CODE) > 15:
            raise Verdict("too-many-digits")
        return COUNTRY_CODE + rest
    if len(digits) > 15:
        raise Verdict("too-many-digits")
    if re.match(COUNTRY_CODE + "[1-9]", digits):
        return digits
    if len(digits) <= 6:
        return digits
    if digits.startswith(COUNTRY_CODE):
        raise Verdict("ambiguous-number")
    return digits


def judge(packet, ports):
    """(to_tag, caller, reason) of a frame in which an INVITE begins."""
    if packet.transport == "tcp":
        return "-", "-", "sip-over-tcp"
    if packet.destination not in ports:
        return "-", "-", "other-port"
    if packet.fault:
        return "-", "-", packet.fault
    readable = packet.payload[:max(0, READABLE - packet.offset)]
    message = readable[LEADING.match(readable).end():]
    to_tag = "-"
    try:
        cut = False
        try:
            fields = header_lines(message)
        except Cut as error:
            fields, cut = error.fields, True
        found = {}
        for index, (name, value) in enumerate(fields):
            name = COMPACT.get(name, name)
            if cut and index == len(fields) - 1:
                break       # the last field of a cut message may go on
            if name in (b"from", b"to"):
                found.setdefault(name, []).append(name_addr(value))
            elif name == b"call-id":
                if re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", value):
                    raise Verdict("bad-header")
                found.setdefault(name, []).append(value.strip(b" \t"))
        if cut:
            raise Verdict("headers-cut")
        for name in (b"from", b"to", b"call-id"):
            values = found.get(name, [])
            if len(values) > 1:
                raise Verdict(name.decode() + "-repeated")
            if not values or not values[0]:
                raise Verdict(name.decode() + "-missing")
        to_tag = "true" if has_tag(found[b"to"][0][1]) else "false"
        if to_tag == "true":
            raise Verdict("in-dialog")
        uri, _ = found[b"from"][0]
        if uri is None:
            raise Verdict("no-number-uri")
        return to_tag, number_of_uri(uri), "not-blocked"
    except Verdict as verdict:
        return to_tag, "-", str(verdict)


def invites(path):
    """(frame number, packet) of every frame in which an INVITE begins."""
    for number, link, frame in frames(path):
        packet = packet_of(link, frame)
        if packet is not None and starts_invite(packet.payload):
            yield number, packet


def raw_rows(path, ports):
    """{frame: (transport, to_tag, caller, reason)} by our own reading."""
    rows = {}
    for number, packet in invites(path):
        if packet.transport == "tcp" and not ports & {packet.source, packet.destination}:
            continue
        rows[number] = (packet.transport, *judge(packet, ports))
    return rows


# ---------------------------------------------------------------- SIP, as tshark sees it

FIELDS = ["frame.number", "frame.protocols", "udp.dstport", "tcp.srcport", "tcp.dstport",
          "sip.Method", "sip.From", "sip.from.user", "sip.from.addr", "sip.from.tag",
          "sip.to.tag", "sip.Call-ID", "_ws.malformed", "_ws.expert.message"]


def tshark_rows(path, ports):
    """{frame: (transport, to_tag, caller, reason)} as tshark's own dissection says.

    Reassembly is off, so that every row stands at the frame where the request begins.
    """
    command = ["tshark", "-n", "-r", str(path), "-o", "ip.defragment:FALSE",
               "-o", "ipv6.defragment:FALSE", "-o", "sip.desegment_headers:FALSE",
               "-o", "sip.desegment_body:FALSE", "-o", "tcp.desegment_tcp_streams:FALSE",
               "-Y", 'sip.Method == "INVITE"', "-T", "fields",
               "-E", "separator=/t", "-E", "occurrence=a", "-E", "aggregator=|"]
    for field in FIELDS:
        command += ["-e", field]
    run = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if run.returncode and not run.stdout:
        raise SystemExit(f"tshark: {run.stderr}")
    rows = {}
    for line in run.stdout.splitlines():
        values = dict(zip(FIELDS, line.split("\t")))
        first = {name: text.split("|")[0] for name, text in values.items()}
        protocols = values["frame.protocols"].split(":")
        if "tcp" in protocols and "udp" not in protocols:
            row = ("tcp", "-", "-", "sip-over-tcp")
            if not ports & {int(first["tcp.srcport"]), int(first["tcp.dstport"])}:
                continue
        elif "icmp" in protocols or "icmpv6" in protocols:
            row = ("icmp", "-", "-", "not-udp")
        elif int(first["udp.dstport"]) not in ports:
            row = ("udp", "-", "-", "other-port")
        elif first["sip.to.tag"]:
            row = ("udp", "true", "-", "in-dialog")
        else:
            user = first["sip.from.user"]
            if not user:        # tshark has no field for the number of a tel: URI
                tel = re.search("<?tel:([^;>]*)", first["sip.From"])
                user = tel.group(1) if tel else ""
            if not first["sip.from.addr"] and not user:
                row = ("udp", "-", "-", "from-missing")
            elif not user:
                row = ("udp", "false", "-", "no-user")
            else:
                try:
                    row = ("udp", "false", number_of_text(re.split("[;:]", user)[0]), "not-blocked")
                except Verdict as verdict:
                    row = ("udp", "false", "-", str(verdict))
        rows[int(first["frame.number"])] = row
    return rows


# ---------------------------------------------------------------- expected files

def captures():
    found = [p for folder in (HERE, HERE / "gpl") for p in folder.iterdir()
             if p.name.endswith(CAPTURE_SUFFIXES)]
    return sorted(found)


def expectations(capture):
    """[(expected file, SIP ports)]: the default port, and all ports where that is another matter."""
    found = [(capture.parent / "expected" / (capture.name + ".tsv"), DEFAULT_PORTS)]
    seen = {packet.destination for _, packet in invites(capture) if packet.transport == "udp"}
    if seen - DEFAULT_PORTS:
        path = capture.parent / "expected-all-ports" / (capture.name + ".tsv")
        found.append((path, DEFAULT_PORTS | seen))
    return found


def ports_line(ports):
    return "#ports\t" + "\t".join(str(port) for port in sorted(ports))


def comments_of(path):
    """{frame: comment lines above its row}; the key None holds those at the end, 0 those at the head."""
    comments, pending = {}, []
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("#ports\t"):
                continue
            if line.startswith("#"):
                pending.append(line)
            elif line:
                key = 0 if line == HEADER else int(line.split("\t")[0])
                if pending:
                    comments[key] = pending
                pending = []
    if pending:
        comments[None] = pending
    return comments


def draft(capture, ports):
    rows = raw_rows(capture, ports).items()
    return ["\t".join([str(number), *row]) for number, row in sorted(rows)]


def write(capture):
    for path, ports in expectations(capture):
        comments = comments_of(path)
        lines = [ports_line(ports)] if ports != DEFAULT_PORTS else []
        lines += comments.pop(0, []) + [HEADER]
        last = comments.pop(None, [])
        for row in draft(capture, ports):
            lines += comments.pop(int(row.split("\t")[0]), []) + [row]
        for lost in comments.values():
            print(f"{path.name}: comment without its row dropped: {lost}", file=sys.stderr)
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(lines + last) + "\n")


def check(capture, with_tshark):
    """The number of faults: rows that differ, and rows where tshark differs but no comment stands."""
    faults = 0
    for path, ports in expectations(capture):
        name = path.relative_to(HERE)
        lines = path.read_text().splitlines() if path.exists() else []
        head = [ports_line(ports)] if ports != DEFAULT_PORTS else []
        rows = [line for line in lines if line.startswith("#ports\t") or line and line[0] != "#"]
        if rows != head + [HEADER] + draft(capture, ports):
            print(f"{name}: not what derive.py drafts")
            faults += 1
        if not with_tshark:
            continue
        comments = comments_of(path)
        everything = "\n".join(line for some in comments.values() for line in some)
        for number, ours, theirs in differences(capture, ports):
            said = number in comments if ours else re.search(rf"\b{number}\b", everything)
            if not said:
                print(f"{name}: frame {number}: {ours}, tshark says {theirs}, and no comment tells why")
                faults += 1
    return faults


def differences(capture, ports):
    ours, theirs = raw_rows(capture, ports), tshark_rows(capture, ports)
    return [(number, ours.get(number), theirs.get(number))
            for number in sorted({*ours, *theirs}) if ours.get(number) != theirs.get(number)]


def main(arguments):
    options = [a for a in arguments if a.startswith("--")]
    names = [a for a in arguments if not a.startswith("--")]
    unknown = set(options) - {"--help", "--show", "--differences", "--check", "--no-tshark"}
    if unknown or "--help" in options:
        print(__doc__)
        return 2 if unknown else 0
    if "--show" in options:
        for number, link, frame in frames(Path(names[0])):
            if number == int(names[1]):
                packet = packet_of(link, frame)
                print(packet.transport, packet.source, packet.destination, packet.fault,
                      "fragment" if packet.fragment else "", f"{len(packet.payload)} bytes at {packet.offset}")
                print("\n".join(repr(line)[2:-1] for line in packet.payload.split(b"\n")))
        return 0
    chosen = [Path(name).resolve() for name in names] or captures()
    if "--differences" in options:
        for capture in chosen:
            for path, ports in expectations(capture):
                for number, ours, theirs in differences(capture, ports):
                    print(f"{path.relative_to(HERE)}\t{number}\traw {ours}\ttshark {theirs}")
        return 0
    if "--check" in options:
        faults = sum(check(capture, "--no-tshark" not in options) for capture in chosen)
        print(f"{len(chosen)} captures checked, {faults} faults")
        return 1 if faults else 0
    for capture in chosen:
        write(capture)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
