"""The mail sink, spoken to by the standard library's mail client and by bare sockets."""

from __future__ import annotations

import base64
import re
import smtplib
import socket
import ssl
import time
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.sinks.conftest import Sink


LARGE = ("x" * 70 + "\n") * 16_000


def test_mail_is_kept_with_its_parts(sink: Sink) -> None:
    mail = EmailMessage()
    mail["From"] = "Älertmanager <alerts@example.com>"
    mail["To"] = '"Öps, Team" <ops@example.com>, b@example.com'
    mail["Cc"] = "Boss <boss@example.com>"
    mail["Reply-To"] = "noreply@example.com"
    mail["Subject"] = "[FIRING:1] Gerät überhitzt: sehr lange Betreffzeile, damit sie gefaltet wird " * 2
    mail["Date"] = "Fri, 02 Jan 2026 03:04:05 +0100"
    mail["Message-Id"] = "<1@example.com>"
    mail.set_content("Grüße\n.\n..punkt\n")
    mail.add_alternative("<p>Grüße</p>\n", subtype="html")
    mail.add_attachment(b"\0\1\2", maintype="application", subtype="octet-stream", filename="dümp.bin")
    with sink.smtp() as client:
        client.send_message(mail, to_addrs=["ops@example.com", "secret@example.com"])
    (message,) = sink.client.messages("mail")
    assert message["mail_from"] == "alerts@example.com"
    assert message["rcpt_to"] == ["ops@example.com", "secret@example.com"]
    assert message["from"] == "Älertmanager <alerts@example.com>"
    assert message["to"] == [
        {"name": "Öps, Team", "address": "ops@example.com"},
        {"name": "", "address": "b@example.com"},
    ]
    assert message["cc"] == [{"name": "Boss", "address": "boss@example.com"}]
    assert message["reply_to"] == [{"name": "", "address": "noreply@example.com"}]
    assert message["subject"] == str(mail["Subject"]).strip()
    assert message["date"] == "2026-01-02T02:04:05Z"
    assert message["message_id"] == "<1@example.com>"
    assert message["text"] == "Grüße\n.\n..punkt\n"
    assert message["html"] == "<p>Grüße</p>\n"
    assert message["attachments"] == [{"filename": "dümp.bin", "type": "application/octet-stream", "size": 3}]
    assert message["parse_error"] is None
    assert (message["tls"], message["user"]) == (False, None)
    assert ["Cc", "Boss <boss@example.com>"] in message["headers"]


def test_greeting_offers_what_the_sink_can_do_and_no_auth_without_users(sink: Sink) -> None:
    with sink.smtp() as client:
        client.ehlo()
        offered = set(client.esmtp_features)
        assert {"8bitmime", "smtputf8", "size"} <= offered
        assert client.esmtp_features["size"] == str(1024 * 1024)
        assert not offered & {"auth", "starttls"}


def test_eight_bit_and_utf8_mail(sink: Sink) -> None:
    with sink.smtp() as client:
        client.sendmail(
            "jörg@example.com",
            ["käthe@example.com"],
            "Subject: Prüfung\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGrün\r\n".encode(),
            mail_options=["SMTPUTF8", "BODY=8BITMIME"],
        )
    (message,) = sink.client.messages("mail")
    assert message["mail_from"] == "jörg@example.com"
    assert message["rcpt_to"] == ["käthe@example.com"]
    assert (message["subject"], message["text"], message["smtputf8"]) == ("Prüfung", "Grün\n", True)


@pytest.mark.parametrize(
    ("content", "part", "value"),
    [
        ("Subject: =?iso-8859-1?q?Gr=FC=DFe?= =?utf-8?b?4oKs?=\n\nx", "subject", "Grüße€"),
        ("Subject: =?utf-8?q?a?=\n =?utf-8?q?b?= c\n\nx", "subject", "ab c"),
        ("Subject: =?nonsense?q?a?=\n\nx", "subject", "=?nonsense?q?a?="),
        ("Subject: =?utf-8?b?!!!?=\n\nx", "subject", "=?utf-8?b?!!!?="),
        ("Subject: =?utf-8?q?two=0D=0Alines?=\n\nx", "subject", "two  lines"),
        ("Date: yesterday\n\nx", "date", None),
        ("Date: Fri, 99 Xxx 99999 99:99:99 +9999\n\nx", "date", None),
        ("no headers at all", "text", "no headers at all\n"),
        ("Content-Type: text/plain; charset=nonsense\n\nabc", "text", "abc\n"),
        ("Content-Type: text/plain; charset=rot13\n\nabc", "text", "abc\n"),
        ("Content-Transfer-Encoding: base64\n\n!!not base64!!", "parse_error", None),
        ("Content-Type: multipart/mixed\n\nno boundary", "parse_error", None),
        ("Content-Type: multipart/mixed; boundary=x\n\n--x\n\nnever closed", "text", "never closed"),
        ("Content-Type: text/html; charset*=x'y'%zz\n\n<b>", "html", "<b>\n"),
        ("Content-Type: message/rfc822\n\nSubject: inner\n\ninner text", "text", "inner text\n"),
        ("To: <<<<>>>>, ((((\n\nx", "text", "x\n"),
    ],
)
def test_odd_mail_is_still_readable(sink: Sink, content: str, part: str, value: str | None) -> None:
    assert sink.mail(content)[part] == value


def test_mail_that_is_no_mail_at_all(sink: Sink) -> None:
    message = sink.mail(b"\xff\xfe\x00 \x80: \xff\n\n\xf0\x28\x8c\x28" + bytes(range(128, 256)))
    assert message["rcpt_to"] == ["ops@example.com"]
    assert sink.request("GET", "/").status == 200


def test_mail_of_countless_parts_is_kept_unparsed(sink: Sink) -> None:
    message = sink.mail("Content-Type: multipart/mixed; boundary=x\n\n" + "--x\n\n" * 1001)
    assert "boundaries" in message["parse_error"]
    assert message["text"].startswith("Content-Type: multipart/mixed")


@pytest.mark.parametrize("depth", [900, 1001])
def test_deeply_nested_mail_is_kept(sink: Sink, depth: int) -> None:
    nested = "".join(f"Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n" for n in range(depth))
    assert "bottom" in sink.mail(nested + "\nbottom")["text"]


@pytest.mark.parametrize(
    "content",
    [
        b"Content-Type: multipart/mixed; boundary=x\n\n" + b"--x\n\n" * 170_000,
        b"To: " + b"(" * 1_000_000,
        b"To: " + b"<" * 1_000_000,
        b"To: " + b"a," * 500_000,
        b"Subject: " + b"=?utf-8?q?" * 100_000,
        b"Subject: " + b"=?utf-8?q?a?= " * 70_000,
        b"A: b\n" * 200_000,
        b"Content-Type: text/plain; " + b"a=b;" * 250_000 + b"\n\nx",
        b"Content-Type: text/plain; " + b"a*0*=b;" * 140_000 + b"\n\nx",
        b"Content-Transfer-Encoding: base64\n\n" + b"!" * 1_000_000,
        b"Content-Transfer-Encoding: uuencode\n\nbegin 644 x\n" + b"M" * 1_000_000,
    ],
    ids=lambda content: repr(content[:45] + content[-12:]),
)
def test_hostile_mail_does_not_hold_up_the_sink(sinks_module: ModuleType, content: bytes) -> None:
    start = time.process_time()
    sinks_module.parse_mail(content)
    assert time.process_time() - start < 2.5


def test_deeply_nested_comments_cost_only_their_own_header(sink: Sink) -> None:
    message = sink.mail("To: " + "\n ".join(["(" * 900] * 8) + "\nSubject: still there\n\nx")
    assert (message["to"], message["subject"], message["parse_error"]) == ([], "still there", None)


def test_headers_are_bounded(sink: Sink) -> None:
    message = sink.mail("Subject: " + "\n ".join(["=?utf-8?q?x?="] * 40_000) + "\n" + "X: y\n" * 1000 + "\nbody")
    assert len(message["subject"]) <= 8192
    assert len(message["headers"]) == 200
    assert message["text"] == "body\n"


def test_too_large_a_mail_is_refused(sink: Sink) -> None:
    with sink.smtp() as client:
        client.ehlo()
        with pytest.raises(smtplib.SMTPSenderRefused) as announced:
            client.sendmail("a@example.com", ["b@example.com"], LARGE)
        assert announced.value.smtp_code == 552
        client.rset()
        client.mail("a@example.com")
        client.rcpt("b@example.com")
        assert client.data(LARGE)[0] == 552
        # The session goes on.
        client.sendmail("a@example.com", ["b@example.com"], "Subject: small\n\nx")
    assert [message["subject"] for message in sink.client.messages("mail")] == ["small"]


def test_recipients_are_bounded(sink: Sink) -> None:
    with sink.smtp() as client:
        client.ehlo()
        client.mail("a@example.com")
        codes = [client.rcpt(f"r{number}@example.com")[0] for number in range(101)]
    assert codes == [250] * 100 + [452]


def test_nonsense_on_the_mail_port(sink: Sink) -> None:
    with socket.create_connection(("127.0.0.1", sink.smtp_port), timeout=20) as client, client.makefile("rb") as lines:
        assert lines.readline().startswith(b"220 ")
        client.sendall(b"\xff\xfe\r\nVRFY \xff\r\nMAIL FROM:<a@example.com>\r\nEHLO " + b"x" * 5000 + b"\r\nEHLO x\r\n")
        codes = [lines.readline()[:3] for _ in range(4)]
        assert codes[0] == b"500"
        assert codes[2:] == [b"503", b"500"]
        while not lines.readline().startswith(b"250 "):
            pass
        client.sendall(b"MAIL FROM:<a@exa\xffmple.com>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n")
        assert [lines.readline()[:3] for _ in range(3)] == [b"250", b"250", b"354"]
        client.sendall(b"Subject: x\r\n\r\n.\r\n")
        assert lines.readline().startswith(b"250 ")
    assert sink.client.messages("mail")[0]["mail_from"] == "a@exa\ufffdmple.com"


def test_a_sender_that_hangs_up_in_the_middle_leaves_nothing(sink: Sink) -> None:
    with socket.create_connection(("127.0.0.1", sink.smtp_port), timeout=20) as client, client.makefile("rb") as lines:
        client.sendall(b"HELO x\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nDATA\r\nSubject: half\r\n")
        for _ in range(5):
            lines.readline()
    sink.mail("Subject: whole\n\nx")
    assert [message["subject"] for message in sink.client.messages("mail")] == ["whole"]


@pytest.mark.parametrize("stage", ["mail", "rcpt", "data"])
def test_fault_refuses_mail_at_its_stage(sink: Sink, stage: str) -> None:
    sink.client.fault(smtp={"code": 451, "text": "4.3.0 try later", "stage": stage, "times": 1})
    expected = {
        "mail": smtplib.SMTPSenderRefused,
        "rcpt": smtplib.SMTPRecipientsRefused,
        "data": smtplib.SMTPDataError,
    }[stage]
    with pytest.raises(expected, match="451"):
        sink.mail("Subject: x\n\nx")
    assert sink.client.messages() == []
    assert sink.mail("Subject: second try\n\nx")["subject"] == "second try"


def test_fault_421_hangs_up(sink: Sink) -> None:
    sink.client.fault(smtp={"code": 421, "text": "4.3.2 going down"})
    with socket.create_connection(("127.0.0.1", sink.smtp_port), timeout=20) as client, client.makefile("rb") as lines:
        client.sendall(b"HELO x\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n\r\n.\r\n")
        assert lines.read().endswith(b"354 End data with <CR><LF>.<CR><LF>\r\n421 4.3.2 going down\r\n")


# STARTTLS and AUTH


@pytest.fixture
def guarded(start_sink: Callable[..., Sink], certificate: tuple[Path, Path], tmp_path: Path) -> Sink:
    """A sink with STARTTLS that demands a login."""
    (tmp_path / "login").write_text("mailer:s3cret:with colon\n")
    cert, key = certificate
    return start_sink("--smtp-tls-cert", cert, "--smtp-tls-key", key, "--smtp-auth-file", tmp_path / "login")


def test_starttls_and_login(guarded: Sink, certificate: tuple[Path, Path]) -> None:
    trusting = ssl.create_default_context(cafile=str(certificate[0]))
    for mechanism in ("PLAIN", "LOGIN"):
        with guarded.smtp() as client:
            client.ehlo()
            assert "auth" not in client.esmtp_features
            assert client.mail("a@example.com")[0] == 530
            assert client.docmd("AUTH", "PLAIN AG1haWxlcgB4")[0] == 538
            client.starttls(context=trusting)
            client.ehlo()
            assert set(client.esmtp_features["auth"].split()) == {"PLAIN", "LOGIN"}
            assert client.mail("a@example.com")[0] == 530
            client.user, client.password = "mailer", "s3cret:with colon"
            assert client.auth(mechanism, getattr(client, f"auth_{mechanism.lower()}"))[0] == 235
            client.sendmail("a@example.com", ["b@example.com"], f"Subject: {mechanism}\n\nx")
    assert [(m["subject"], m["tls"], m["user"]) for m in guarded.client.messages()] == [
        ("PLAIN", True, "mailer"),
        ("LOGIN", True, "mailer"),
    ]
    assert "s3cret" not in guarded.output()


def test_wrong_logins_are_refused(guarded: Sink, certificate: tuple[Path, Path]) -> None:
    trusting = ssl.create_default_context(cafile=str(certificate[0]))
    for user, password in (("mailer", "wrong"), ("other", "s3cret:with colon"), ("mailer", ""), ("mäiler", "x")):
        with guarded.smtp() as client:
            client.starttls(context=trusting)
            client.ehlo()
            token = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
            assert client.docmd("AUTH", f"PLAIN {token}")[0] == 535
            assert client.mail("a@example.com")[0] == 530
    assert guarded.client.messages() == []


def test_a_failed_tls_handshake_harms_nobody(guarded: Sink) -> None:
    with socket.create_connection(("127.0.0.1", guarded.smtp_port), timeout=20) as client:
        with client.makefile("rb") as lines:
            client.sendall(b"EHLO x\r\n")
            while not re.match(rb"250 ", lines.readline()):
                pass
            client.sendall(b"STARTTLS\r\n")
            assert lines.readline().startswith(b"220")
        client.sendall(b"this is no handshake\r\n" * 10)
        while client.recv(4096):
            pass
    guarded.wait_for_line("SMTP session failed: TLSSetupException")
    with guarded.smtp() as again:
        assert again.ehlo()[0] == 250


def test_login_without_tls_where_no_certificate_is_given(start_sink: Callable[..., Sink], tmp_path: Path) -> None:
    (tmp_path / "login").write_text("mailer:s3cret")
    sink = start_sink("--smtp-auth-file", tmp_path / "login")
    with sink.smtp() as client:
        client.login("mailer", "s3cret")
        client.sendmail("a@example.com", ["b@example.com"], "Subject: x\n\nx")
    assert sink.client.messages()[0]["user"] == "mailer"
