"""Servers of other kinds than the default: people in an LDAP directory, and Grafana's data in PostgreSQL and MySQL.

They run on the host itself, from Debian's packages. Named to run late: Grafana's data moves.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from apis import Grafana

HOST = "allin-grafana"
SECRET = "molecule-server-password"
BASE = "dc=molecule,dc=test"
# Some have groups of their own schema, and no attribute memberOf.
DIRECTORY = f"""
dn: ou=people,{BASE}
objectClass: organizationalUnit
ou: people

dn: ou=groups,{BASE}
objectClass: organizationalUnit
ou: groups
"""
PERSON = """
dn: uid={login},ou=people,{base}
objectClass: inetOrgPerson
uid: {login}
cn: {login}
sn: {login}
givenName: {login}
mail: {login}@ldap.test
userPassword: molecule-{login}-password
"""
GROUP = """
dn: cn={name},ou=groups,{base}
objectClass: posixGroup
cn: {name}
gidNumber: {number}
{members}
"""
GROUPS = {"operators": ["lena"], "staff": ["lena", "lars"]}
PEOPLE = ("lena", "lars", "lucy")
LDAP = {
    "host": "127.0.0.1",
    "port": 389,
    "use_ssl": False,
    "bind_dn": f"cn=admin,{BASE}",
    "bind_password": SECRET,
    "search_base_dns": [f"ou=people,{BASE}"],
    "group_search_filter": "(&(objectClass=posixGroup)(memberUid=%s))",
    "group_search_filter_user_attribute": "uid",
    "group_search_base_dns": [f"ou=groups,{BASE}"],
    "attributes": {"member_of": "dn"},
    "group_mappings": [
        {"group_dn": f"cn=operators,ou=groups,{BASE}", "role": "Admin", "grafana_admin": True},
        {"group_dn": f"cn=staff,ou=groups,{BASE}", "role": "Viewer"},
    ],
}


def on_host(script: str, stdin: str = "") -> str:
    """Run a shell script on the host as root; return what it prints. A failure fails the test."""
    done = subprocess.run(
        ["docker", "exec", "--interactive", HOST, "sh", "-euc", script],
        input=stdin, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


@pytest.fixture(scope="module", autouse=True)
def packages() -> None:
    """Install the servers. slapd asks for a password and a domain."""
    answers = "\n".join(
        f"slapd slapd/{question}"
        for question in (
            f"password1 password {SECRET}",
            f"password2 password {SECRET}",
            "domain string molecule.test",
            "no_configuration boolean false",
        )
    )
    on_host("debconf-set-selections", answers + "\n")
    on_host(
        "apt-get update -qq && DEBIAN_FRONTEND=noninteractive "
        "apt-get install -y -qq --no-install-recommends slapd ldap-utils postgresql mariadb-server"
    )


@pytest.fixture
def directory() -> None:
    """People and groups in the directory."""
    people = [PERSON.format(login=login, base=BASE) for login in PEOPLE]
    groups = [
        GROUP.format(
            name=name, number=2000 + number, base=BASE, members="\n".join(f"memberUid: {one}" for one in members)
        )
        for number, (name, members) in enumerate(GROUPS.items())
    ]
    as_admin = f"-x -H ldap://127.0.0.1 -D cn=admin,{BASE} -w {SECRET}"
    # What an earlier run has left: 32 is what is not there.
    on_host(f"ldapdelete -r {as_admin} ou=people,{BASE} ou=groups,{BASE} || test $? -eq 32")
    on_host(f"ldapadd {as_admin}", "\n".join([DIRECTORY, *people, *groups]))


def test_people_of_a_directory_have_the_roles_of_their_groups(
    deploy: Any, url: str, admin: Grafana, directory: None
) -> None:
    run = deploy("--diff", grafana_ldap=LDAP)
    assert run.code == 0, run.output
    assert SECRET not in run.output
    lena, lars = (Grafana(url, login, f"molecule-{login}-password") for login in ("lena", "lars"))
    for somebody, role, is_server_admin in ((lena, "Admin", True), (lars, "Viewer", False)):
        (org,) = somebody.get("/api/user/orgs")
        user = somebody.get("/api/user")
        assert (org["role"], user["isGrafanaAdmin"]) == (role, is_server_admin), user
        assert user["email"] == f"{somebody.login}@ldap.test"
    # Known, and in no group that has a role; and somebody with a wrong password.
    assert Grafana(url, "lucy", "molecule-lucy-password").status("GET", "/api/user") == 401
    assert Grafana(url, "lena", "wrong").status("GET", "/api/user") == 401
    assert deploy(grafana_ldap=LDAP).changed(HOST) == 0

    for login in ("lena", "lars"):
        user = admin.get(f"/api/users/lookup?loginOrEmail={login}")
        assert admin.status("DELETE", f"/api/admin/users/{user['id']}") == 200


DATABASES = {
    "postgres": (
        f"""su postgres -c "psql -v ON_ERROR_STOP=1" <<'E'
drop database if exists grafana;
drop role if exists grafana;
create role grafana login password '{SECRET}';
create database grafana owner grafana;
E""",
        {"type": "postgres", "host": "127.0.0.1:5432", "ssl_mode": "require"},
        "su postgres -c \"psql -At grafana -c 'select login from public.user'\"",
    ),
    "mysql": (
        f"""mariadb <<'E'
create or replace database grafana character set utf8mb4;
create or replace user grafana@'127.0.0.1' identified by '{SECRET}';
grant all on grafana.* to grafana@'127.0.0.1';
E""",
        {"type": "mysql", "host": "127.0.0.1:3306"},
        "mariadb --skip-column-names grafana --execute 'select login from user'",
    ),
}


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest, deploy: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """A database that was made for Grafana, and how its people are read there; afterwards Grafana has its own again."""
    make, settings, people = DATABASES[request.param]
    on_host(make)
    yield settings | {"name": "grafana", "user": "grafana", "password": SECRET}, people
    assert deploy().code == 0


def test_a_database_server_has_everything(
    deploy: Any, person: Any, admin: Grafana, database: tuple[dict[str, Any], str]
) -> None:
    settings, people = database
    run = deploy("--diff", grafana_database=settings)
    assert run.code == 0, run.output
    assert SECRET not in run.output
    assert admin.get("/api/health")["database"] == "ok"
    assert set(on_host(people).split()) >= {"admin", "victor", "edith", "paula", "otto"}
    assert person("victor").status("GET", "/api/folders/open") == 200
    assert person("otto").status("GET", "/api/folders/open") == 403
    assert admin.get("/api/dashboards/uid/allin-overview")["meta"]["provisioned"] is True
    assert deploy(grafana_database=settings).changed(HOST) == 0
