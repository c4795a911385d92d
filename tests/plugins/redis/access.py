"""Access lists: commands that the module wraps need no entry of their own, and nobody gets in by them."""
from harness import check, check_equal


def talk(server, *commands):
    """One connection, command after command: the replies, errors as text."""
    import redis
    connection = server.connect().connection_pool.get_connection("_")
    replies = []
    for words in commands:
        connection.send_command(*words)
        try:
            replies.append(connection.read_response())
        except redis.exceptions.RedisError as error:
            replies.append(f"{type(error).__name__} {error}")
    connection.disconnect()
    return replies


WRAPPED = [("SADD", "ok:s", "a", "b", "c"), ("SADD", "ok:s", "a"), ("SPOP", "ok:s"),
           ("INCRBYFLOAT", "ok:f", "1.5"), ("MULTI",), ("SET", "ok:k", "1"), ("INCR", "ok:k"),
           ("MSET", "ok:a", "1", "ok:b", "2"), ("SMOVE", "ok:s", "ok:t", "zz"), ("EXEC",)]
RULES = ("on", ">pw", "~ok:*", "resetchannels", "-@all", "+sadd", "+spop", "+incrbyfloat", "+multi",
         "+exec", "+set", "+incr", "+mset", "+smove", "+eval")


def may_run_what_is_listed(place):
    """A user with single commands in the list runs them, wrapped or not; others are refused."""
    region, plain = place.region(1), place.plain()
    newer = b"valkey" in region.run("INFO", "server")
    for default in (("nopass", "on"), ("off",), ("on", "resetpass", ">secret")):
        for server in (region, plain):
            server.admin("ACL", "SETUSER", "one", "reset", *RULES)
            server.admin("ACL", "SETUSER", "default", *default)
        if default[-1] == ">secret":
            for server in (region, plain):
                server.client = server.connect(password="secret")
        for server in (region, plain):
            server.admin("FLUSHALL") if server is plain else server.admin("DEL", "ok:s", "ok:f", "ok:t")
        got, wanted = (talk(server, ("AUTH", "one", "pw"), *WRAPPED) for server in (region, plain))
        if default[-1] == ">secret" and not newer:
            check("NoPermission" in got[3], f"Redis 7.0 with a password for 'default': {got}")
            region.admin("ACL", "SETUSER", "one", "+meridian.strict", "+meridian.strict-two",
                         "+meridian.strict-pairs")
            region.admin("DEL", "ok:s", "ok:f", "ok:t")
            got = talk(region, ("AUTH", "one", "pw"), *WRAPPED)
        for mine, theirs, words in zip(got, wanted, (("AUTH",),) + tuple(WRAPPED)):
            if words[0] == "SPOP":
                check(mine in (b"a", b"b", b"c"), f"{default} {words}: {mine!r}")
            elif not isinstance(theirs, str):
                check_equal(mine, theirs, f"{default} {words}")
            else:
                check_equal(mine.split(" ")[0], theirs.split(" ")[0], f"{default} {words}")
        for words in (("SPOP", "no:s"), ("MERIDIAN.RUN", "SET", "no:k", "1"),
                      ("MERIDIAN.RUN", "DEL", "ok:k"), ("MERIDIAN.RUN", "APPEND", "ok:k", "x"),
                      ("MERIDIAN.RUN", "INCRBY", "ok:k", "1")):
            reply = talk(region, ("AUTH", "one", "pw"), words)[1]
            check(isinstance(reply, str), f"{default} {words} said {reply!r}")
        region.admin("HSET", "ok:h", "f", "1")
        reply = talk(region, ("AUTH", "one", "pw"), ("MULTI",), ("HDEL", "ok:h", "f"), ("EXEC",))
        check("Error" in str(reply), f"in a transaction: {reply!r}")
        check_equal(region.run("HGET", "ok:h", "f"), b"1", "what a transaction may not do")


def needs_a_password(place):
    """Who has not authenticated runs nothing, wrapped or not, also by the name of the wrapper."""
    region = place.region(1)
    region.admin("SADD", "ok:s", "a")
    region.admin("ACL", "SETUSER", "other", "on", ">pw", "~*", "+@all")
    for default in (("on", "resetpass", ">secret"), ("off",)):
        region.admin("ACL", "SETUSER", "default", *default)
        region.client = region.connect(username="other", password="pw")
        for words in WRAPPED + [("MERIDIAN.RUN", "SET", "x", "1"), ("GET", "x"),
                                ("MERIDIAN.RUN-PAIRS", "MSET", "x", "1"), ("MERIDIAN.STRICT", "SET", "x", "1")]:
            reply = talk(region, words)[0]
            check(isinstance(reply, str) and "uthentic" in reply, f"{default} {words} said {reply!r}")
            busy = region.connect(username="other", password="pw").connection_pool.get_connection("_")
            busy.send_command("MULTI")
            busy.read_response()
            reply = talk(region, words)[0]
            busy.disconnect()
            check(isinstance(reply, str) and "uthentic" in reply, f"{default} {words} said {reply!r}")
        check_equal(region.run("EXISTS", "x", "ok:k", "ok:f"), 0, "nothing was written")
    region.admin("ACL", "SETUSER", "default", "on", "resetpass", ">secret")
    reply = talk(region, ("AUTH", "secret"), *WRAPPED)
    check(not any(isinstance(one, str) for one in reply[:8]), f"with the password: {reply!r}")


ALL = [may_run_what_is_listed, needs_a_password]
