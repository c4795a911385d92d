"""Values over RESP and HTTP: what is written in one region is what all others read."""
import threading
import time

import redis

from lab import LIMIT_S, Failure, REGIONS, eventually, expect, expect_true
from leases import CutWatch


def kv(lab, region, *words):
    return lab.locks(region).execute_command(*words)


def refused(lab, region, *words):
    """The words of a refusal, of any but want of a majority."""
    try:
        kv(lab, region, *words)
    except redis.ResponseError as error:
        return str(error)
    raise Failure(f"not refused: {words}")


def at_once(ask):
    began = time.monotonic()
    return ask() and time.monotonic() - began < 0.2


def scenario_what_one_region_writes_all_read(lab):
    revision = kv(lab, "us-east", "KV.PUT", "global:config/size", "10")
    for region in REGIONS:
        expect(kv(lab, region, "KV.GET", "global:config/size"), ["10", revision], region)
        eventually(f"{region}'s own copy", lambda r=region: kv(
            lab, r, "KV.GET", "global:config/size", "STALE") == ["10", revision])
    expect(kv(lab, "eu-west", "KV.GET", "global:config/none"), None, "no such key")
    expect_true(refused(lab, "us-east", "KV.PUT", "size", "1").startswith("BADREQUEST"),
                "a key names its group")


def scenario_compare_and_swap(lab):
    key = "global:config/leader"
    first = kv(lab, "us-east", "KV.CAS", key, 0, "ann")
    expect(kv(lab, "eu-west", "KV.CAS", key, 0, "ben"), None, "it exists")
    second = kv(lab, "eu-west", "KV.CAS", key, first, "ben")
    expect_true(second > first, "revisions grow")
    expect(kv(lab, "ap-southeast", "KV.CAS", key, first, "cat"), None, "it has changed")
    expect(kv(lab, "us-east", "KV.GET", key), ["ben", second], "the one who was first")
    # a repeat of the same request has the same answer
    third = kv(lab, "us-east", "KV.CAS", key, second, "dan", "ID", "request-1")
    expect(kv(lab, "eu-west", "KV.CAS", key, second, "dan", "ID", "request-1"), third, "repeated")


def scenario_a_transaction_is_whole(lab):
    kv(lab, "us-east", "KV.PUT", "global:bank/a", "5")
    kv(lab, "us-east", "KV.PUT", "global:bank/b", "0")
    words = ["KV.TXN", "IF", "global:bank/a", "VALUE", "=", "5", "THEN", "PUT", "global:bank/a", "0",
             "PUT", "global:bank/b", "5", "RANGE", "global:bank/", "ELSE", "GET", "global:bank/a"]
    done, revision, answers = kv(lab, "eu-west", *words)
    expect((done, [item[:2] for item in answers[2]]),
           (1, [["global:bank/a", "0"], ["global:bank/b", "5"]]), "both or none")
    done, same, answers = kv(lab, "ap-southeast", *words)
    expect((done, same, answers[0][0]), (0, revision, "0"), "the condition holds no more")
    expect_true(refused(lab, "us-east", "KV.TXN", "THEN", "PUT", "global:x", "1", "PUT",
                        "us-east:x", "1").startswith("BADREQUEST"), "one group")
    expect(kv(lab, "us-east", "KV.DEL", "global:bank/", "PREFIX"), 2, "both are deleted")


def scenario_ranges_and_changes(lab):
    before = kv(lab, "us-east", "KV.RANGE", "global:list/")[0]
    for index in range(5):
        kv(lab, REGIONS[index % 3], "KV.PUT", f"global:list/{index}", str(index))
    revision, more, items = kv(lab, "eu-west", "KV.RANGE", "global:list/", "LIMIT", 3)
    expect((more, [item[1] for item in items]), (1, ["0", "1", "2"]), "the first three")
    _, more, items = kv(lab, "eu-west", "KV.RANGE", "global:list/", "AFTER", "global:list/2")
    expect((more, [item[1] for item in items]), (0, ["3", "4"]), "the rest")
    eventually("all changes, in order", lambda: [
        change[2] for change in kv(lab, "ap-southeast", "KV.WATCH", "global:list/", before)[1]
    ] == ["0", "1", "2", "3", "4"])
    seen = []
    watch = threading.Thread(target=lambda: seen.append(
        kv(lab, "ap-southeast", "KV.WATCH", "global:list/", revision, "WAIT", 8000)))
    watch.start()
    time.sleep(0.2)  # so that it waits; should it be late, the answer is the same
    written = kv(lab, "us-east", "KV.PUT", "global:list/9", "new")
    watch.join(LIMIT_S)
    expect(seen, [[written, [["put", "global:list/9", "new", written]]]], "who waits is told")
    kv(lab, "us-east", "KV.COMPACT", "global:", written)
    # A watch reads the node's own copy, which may be behind the leader's answer by the way to it.
    eventually("what is forgotten is said to be", lambda: refused(
        lab, "us-east", "KV.WATCH", "global:list/", before).startswith("COMPACTED"))


def scenario_values_over_http(lab):
    path = "/kv/global:config/http"
    answer = lab.http("us-east", path + "/put", {"value": "1", "keep": True})
    expect(answer.status_code, 200, answer.text)
    revision = answer.json()["revision"]
    expect(lab.http("eu-west", path + "/put", {"value": "2", "revision": 0}).status_code, 409, "exists")
    expect(lab.http("eu-west", path + "/put", {"valve": "2"}).status_code, 400, "misspelt")
    expect(lab.http("eu-west", path).json()["value"], "1", "read elsewhere")
    raw = lab.http("us-east", path + "/put", {"base64": "/wA=", "revision": revision})
    expect(raw.status_code, 200, raw.text)
    expect(lab.http("eu-west", path).json()["base64"], "/wA=", "bytes")
    history = lab.http("eu-west", "/kv-history?key=global:config/http").json()["items"]
    expect([item.get("value") for item in history], [None, "1"], "its history")
    done = lab.http("us-east", "/kv", {
        "if": [{"key": "global:config/http", "what": "version", "number": 2}],
        "then": [{"op": "delete", "key": "global:config/http"}]}).json()
    expect((done["succeeded"], done["steps"][0]["total"]), (True, 1), "a transaction")
    expect(lab.http("eu-west", path).status_code, 404, "it is gone")


def scenario_a_key_ends_with_its_session(lab):
    key, own = "us-east:worker/1", ("us-east:", "worker")
    session = kv(lab, "us-east", "SESSION.OPEN", *own, 60000)[0]
    kv(lab, "us-east", "KV.PUT", key, "here", "SESSION", session, "OWNER", "worker")
    expect(kv(lab, "eu-west", "KV.GET", key)[0], "here", "asked elsewhere")
    expect_true(refused(lab, "us-east", "KV.PUT", "us-east:worker/2", "x", "SESSION", session,
                        "OWNER", "other").startswith("NOSESSION"), "another's session")
    expect(kv(lab, "us-east", "SESSION.CLOSE", *own, session), 1, "closed")
    expect(kv(lab, "us-east", "KV.GET", key), None, "it goes with its session")
    session = kv(lab, "us-east", "SESSION.OPEN", *own, 500)[0]
    try:
        kv(lab, "us-east", "KV.PUT", key, "again", "SESSION", session, "OWNER", "worker")
    except redis.ResponseError as error:  # a slow machine: the session has ended already
        expect_true(str(error).startswith("NOSESSION"), f"no other reason: {error}")
    eventually("it goes with a session that is not kept",
               lambda: kv(lab, "us-east", "KV.GET", "us-east:worker/1") is None)


def scenario_a_service_is_registered_over_http(lab):
    opened = lab.http("eu-west", "/sessions/open",
                  {"prefix": "global:", "owner": "pay-1", "ttl_ms": 60000}).json()
    path = "/kv/global:service/web/one/put"
    value = {"value": "10.0.0.1:80 region eu-west", "session": opened["session"], "owner": "pay-1"}
    expect(lab.http("eu-west", path, dict(value, owner="other")).status_code, 404, "another's session")
    expect(lab.http("eu-west", path, value).status_code, 200, "registered")
    found = eventually("found elsewhere",
                       lambda: lab.http("us-east", "/services/web").json()["instances"])
    expect((found[0]["host"], found[0]["port"]), ("10.0.0.1", 80), "where it is")
    kept = {"prefix": "global:", "owner": "pay-1", "session": opened["session"]}
    expect(lab.http("us-east", "/sessions/keep", kept).json()["ttl_ms"], 60000, "kept from elsewhere")
    expect(lab.http("us-east", "/sessions/close", kept).status_code, 200, "closed")
    eventually("gone", lambda: lab.http("us-east", "/services/web").status_code == 404)
    expect(lab.http("us-east", "/sessions/keep", kept).status_code, 404, "it has ended")


def scenario_cut_off_values_are_read_stale_and_not_written(lab):
    alone = "eu-west"
    revision = kv(lab, "us-east", "KV.PUT", "global:config/cut", "before")
    eventually("its copy has it",
               lambda: kv(lab, alone, "KV.GET", "global:config/cut", "STALE")[1] == revision)
    watching = CutWatch(lab, alone)
    lab.cut_off(alone)
    try:
        eventually("writes are refused", lambda: lab.no_majority(
            alone, "KV.PUT", "global:config/cut", "alone"))
        eventually("so are linearizable reads, soon at once", lambda: at_once(
            lambda: lab.no_majority(alone, "KV.GET", "global:config/cut")))
        expect(kv(lab, alone, "KV.GET", "global:config/cut", "STALE"), ["before", revision],
               "stale reads go on")
        # Another one of them may have to lead first: such a write is asked for again.
        later = kv(lab, "us-east", "KV.PUT", "global:config/cut", "after")
        watching.cut()
        expect_true(kv(lab, alone, "KV.PUT", f"{alone}:own", "1") > 0, "its own values are written")
    finally:
        lab.heal()
    eventually("healed, it reads what the others wrote", lambda: kv(
        lab, alone, "KV.GET", "global:config/cut") == ["after", later])
    watching.healed()
    lab.wait_all_active()
