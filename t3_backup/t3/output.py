"""Say what went wrong out of what a T3 program or npm printed, and let no secret of it through.

Pure. An error of T3 is some thirty lines of nested causes, of which the innermost says why. What a
server prints last is a token, as text, in a URL and as a QR code, that logs anybody in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from t3_backup.text import printable

REDACTED = "[redacted]"
_MOST = 300  # characters of an error's line

# Colours, and whatever else a terminal would act on (ECMA-48).
_TERMINAL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
_QR_CODE = re.compile(r"^ *[\u2580-\u259f][\u2580-\u259f ]*$", re.MULTILINE)
_VALUE = r"[^\s\"'<>,;]+"
_WORD = r"[A-Za-z0-9_-]"
# Each finds what comes before a secret, which stays, and the secret.
_SECRETS = (
    re.compile(rf"(\b(?:Token|Pairing URL):[ \t]*){_VALUE}"),
    re.compile(r"(?i)(\b(?:set-)?cookie:\s*)[^\r\n]+"),
    re.compile(rf"(?i)(\b(?:bearer|dpop|basic)\s+){_WORD}[^\s\"']{{7,}}"),
    re.compile(rf"(?i)([?&#]\w*(?:token|credential|ticket|secret|code)=){_VALUE}"),
    re.compile(rf"(?i)(\b\w*(?:auth|token|secret|password|api_?key) ?= ?){_VALUE}"),
    re.compile(r"(?i)(\b\w*(?:token|credential|secret|password)['\"]?\s*:\s*)(['\"]).*?\2"),
    re.compile(rf"(\bt3_session\w*=){_VALUE}"),
    re.compile(r"(://)[^/\s:@]+:[^/\s@]*(?=@)"),
    re.compile(rf"()\beyJ{_WORD}{{6,}}(?:\.{_WORD}*)*"),  # JSON as base64, signed or not
    re.compile(rf"()(?<!{_WORD})(?:{_WORD}{{24,}}\.)+{_WORD}{{24,}}"),
    re.compile(r"()(?<!\w)[2-9A-HJ-NP-Z]{12}(?!\w)"),  # a credential of T3's
    re.compile(r"()\bnpm_[A-Za-z0-9]{36}\b"),
)

_LOGGED = re.compile(r"\[[\d:.]+\] (?:ERROR|FATAL)(?: \(#\d+\))?: +(\S.*)")
_RAISED = re.compile(r"(?:Uncaught )?((?:[\w$]+[./])*[\w$]*(?:Error|Exception)(?: \[\w+\])?: .*)")
_CAUSE = re.compile(r"\s+\[cause\]: (\w.*)")
_NPM = re.compile(r"npm (?:ERR!|error)(?: (.*))?")
_NPM_SAYS_NOTHING = re.compile(
    r"(?:code|errno|syscall|path|dest|command|cwd|A complete log of this run)\b.*"
)
# The place in a program, the end of what a crash of Node prints, and the warnings of Node.
_SAYS_NOTHING = re.compile(
    r"at .*|Node\.js v[\d.]+|\(node:\d+\) .*|\(Use `?node .*|throw .*|[\W_]*", re.DOTALL
)


def redact(text: str, known: Iterable[str] = ()) -> str:
    """Take out of `text` what would log somebody in, such as a token or a cookie.

    That is whatever has the form of one, the QR code of a pairing, and what is `known` to be one.
    """
    text = _TERMINAL.sub("", text)
    for secret in known:
        text = text.replace(secret, REDACTED)
    for pattern in _SECRETS:
        text = pattern.sub(rf"\1{REDACTED}", text)
    return _QR_CODE.sub("", text)


def innermost_error(text: str, known: Iterable[str] = ()) -> str:
    """Find the line that says what is wrong in what a T3 program or npm printed.

    Of the last error it is the innermost cause; without an error, the last line that says
    something; empty where there is none. It is redacted (`known`: as there), short and printable.
    """
    lines = redact(text, known).splitlines()
    said = _npm_error(lines) or _last_error(lines) or _last_line(lines)
    return printable(said.strip(), _MOST)


def _last_error(lines: Sequence[str]) -> str:
    found = ""
    for line in lines:
        match = _LOGGED.match(line) or _RAISED.match(line)
        if match := match or (_CAUSE.match(line) if found else None):
            found = match[1]
    return found.removesuffix(" {")


def _last_line(lines: Sequence[str]) -> str:
    return next((line for line in reversed(lines) if not _SAYS_NOTHING.fullmatch(line.strip())), "")


def _npm_error(lines: Sequence[str]) -> str:
    """Give npm's code and the line that explains it, or what a script of a package said."""
    said = [match[1] or "" for line in lines if (match := _NPM.fullmatch(line.rstrip()))]
    code = next((line.removeprefix("code ") for line in said if line.startswith("code ")), "")
    telling = [line for line in said if not _NPM_SAYS_NOTHING.fullmatch(line)]
    why = _last_error(telling) or next((_without_key(line, code) for line in telling), "")
    return f"{code}: {why}" if code[:1] == "E" and code not in why else why


def _without_key(line: str, code: str) -> str:
    """Leave out the key that such a line begins with, such as `notarget` for ETARGET."""
    key, _, rest = line.partition(" ")
    name = code.lower().removeprefix("e")
    return rest if rest and name and (name in key or key in name) else line
