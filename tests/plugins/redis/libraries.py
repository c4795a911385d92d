"""Client libraries as they are, in C, Python and Node.js: what one writes in a region, one reads in
another. A library that is not there is said to be skipped."""
import os
import shutil
import subprocess
import tempfile

import redis
from harness import ADDRESS, check, check_equal, same_everywhere, settle_pair
from node_package import node_environment

HERE = os.path.dirname(os.path.abspath(__file__))


def run(words, **keywords):
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, **keywords)
    check(done.returncode == 0, f"{words[0]}: {done.stdout[-500:]} {done.stderr[-1500:]}")


def both_ways(a, b):
    settle_pair(a, b)
    settle_pair(b, a)


def library_c(place):
    compiler = shutil.which("cc")
    if compiler is None or not os.path.exists("/usr/include/hiredis/hiredis.h"):
        print("    skipped: no libhiredis-dev")
        return
    a, b = place.region(1), place.region(2)
    with tempfile.TemporaryDirectory(prefix="meridian-test-client-") as folder:
        program = folder + "/client"
        run([compiler, "-o", program, HERE + "/client.c", "-lhiredis"])
        run([program, ADDRESS, str(a.port), "write"])
        both_ways(a, b)
        run([program, ADDRESS, str(b.port), "read"])
    same_everywhere([a, b], "what the C library wrote")


def library_node(place):
    environment = node_environment("redis", 4)
    if environment is None:
        return
    a, b = place.region(1), place.region(2)
    run(["node", HERE + "/client.js", str(a.port), ADDRESS, "write"], env=environment)
    both_ways(a, b)
    run(["node", HERE + "/client.js", str(b.port), ADDRESS, "read"], env=environment)
    same_everywhere([a, b], "what the Node.js library wrote")


def library_python(place):
    """With the library's own callbacks, which the other groups switch off."""
    a, b = place.region(1), place.region(2)
    one, two = (redis.Redis(host=ADDRESS, port=region.port, decode_responses=True) for region in (a, b))
    check_equal(one.set("p:string", "value", ex=5000), True, "SET")
    check_equal(one.incr("p:number", 5), 5, "INCR")
    check_equal(one.hset("p:hash", mapping={"f": "1", "g": "2"}), 2, "HSET")
    check_equal(one.sadd("p:set", "a", "b"), 2, "SADD")
    check_equal(one.rpush("p:list", "a", "b", "c"), 3, "RPUSH")
    check_equal(one.blpop(["p:list"], 1), ("p:list", "a"), "BLPOP")
    with one.pipeline(transaction=True) as pipe:
        pipe.watch("p:number")
        check_equal(pipe.get("p:number"), "5", "GET in WATCH")
        pipe.multi()
        pipe.incr("p:number")
        pipe.sadd("p:set", "b", "c")
        check_equal(pipe.execute(), [6, 1], "EXEC")
    with one.pipeline(transaction=True) as pipe:
        pipe.watch("p:number")
        two.incr("p:number", 100)
        settle_pair(b, a)  # a merge touches what is watched
        pipe.multi()
        pipe.incr("p:number")
        try:
            pipe.execute()
            check(False, "EXEC after a merge of a watched key")
        except redis.exceptions.WatchError:
            pass
    script = one.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
    check_equal(script(keys=["p:number"], args=[10]), 116, "EVALSHA")
    with one.pipeline(transaction=False) as pipe:
        for number in range(500):
            pipe.set(f"p:pipe:{number}", number)
        check_equal(pipe.execute(), [True] * 500, "a pipeline")
    listener = one.pubsub(ignore_subscribe_messages=True)
    listener.subscribe("news")
    listener.get_message(timeout=1)
    one.publish("news", "hello")
    message = listener.get_message(timeout=30) or listener.get_message(timeout=30)
    check_equal(message and message["data"], "hello", "SUBSCRIBE")
    check_equal(len(set(one.scan_iter("p:pipe:*", count=20))), 500, "SCAN")
    both_ways(a, b)
    check_equal((two.get("p:number"), two.smembers("p:set"), two.lrange("p:list", 0, -1)),
                ("116", {"a", "b", "c"}, ["b", "c"]), "in the other region")
    same_everywhere([a, b], "what the Python library wrote")


ALL = [library_c, library_python, library_node]
