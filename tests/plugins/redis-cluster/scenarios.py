"""What must hold when a region is a Redis Cluster."""
import random
import subprocess
import threading

from harness import (ADDRESS, Connection, Error, Failed, Region, Server, Tool, World, address,
                     check, close_all, cluster, eventually, single)

KEYS = 60


def write_some(client, rng, count):
    """A bit of everything; returns what the counters got."""
    added = 0
    for _ in range(count):
        at = rng.randrange(KEYS)
        what = rng.randrange(8)
        if what == 0:
            client.run("SET", f"string:{at}", f"value-{rng.random()}")
        elif what == 1:
            client.run("INCR", f"counter:{at}")
            added += 1
        elif what == 2:
            client.run("SADD", f"set:{at}", rng.randrange(8))
        elif what == 3:
            client.run("SREM", f"set:{at}", rng.randrange(8))
        elif what == 4:
            client.run("HSET", f"hash:{at}", rng.randrange(4), rng.random())
        elif what == 5:
            client.run("ZADD", f"zset:{at}", rng.randrange(100), rng.randrange(6))
        elif what == 6:
            client.run(*rng.choice([("RPUSH", f"list:{at}", rng.random()), ("LPOP", f"list:{at}")]))
        else:
            client.run("DEL", rng.choice(["string", "set", "hash", "zset", "list"]) + f":{at}")
    return added


def info(server):
    lines = server.run("INFO", "meridian").decode().split("\r\n")
    return dict(line.split(":") for line in lines if ":" in line)


def refused(server, *words):
    try:
        return server.run(*words)
    except Error as error:
        return error


def slot_here(server, key):
    return not isinstance(refused(server, "EXISTS", key), Error)


def counted(client):
    return sum(int(client.run("GET", f"counter:{at}") or 0) for at in range(KEYS))


def same_values(clients):
    for kind, read, *rest in (("string", "GET"), ("counter", "GET"), ("set", "SMEMBERS"),
                              ("hash", "HGETALL"), ("list", "LRANGE", 0, -1),
                              ("zset", "ZRANGE", 0, -1, "WITHSCORES")):
        for at in range(KEYS):
            values = []
            for client in clients:
                value = client.run(read, f"{kind}:{at}", *rest)
                if kind == "hash":
                    value = sorted(zip(value[::2], value[1::2]))
                values.append(sorted(value) if kind == "set" else value)
            check(all(value == values[0] for value in values),
                  f"{kind}:{at} differs: {values}")


def open_world(world, *regions):
    """Puts the engines in front, and waits for each."""
    world.connect(*regions)
    for region in regions:
        if len(region.servers) == 1:
            region.attach("redis=" + address(region.servers[0]))
        else:
            region.attach(*("cluster=" + address(server) for server in region.servers[:2]))
    for region in regions:
        eventually(lambda r=region: r.up, lambda r=region: f"not up: {r.tool.lines}")


def streams(program):
    """Three shards here, one server there, two shards in the third: all write, all end alike. Then
    one region is cut off the streams so long that it needs the state, and gets it in parts."""
    world = World()
    rng = random.Random(1)
    try:
        one, two, three = cluster(program, 1, 3), single(world, program, 2), cluster(program, 3, 3)
        open_world(world, one, two, three)
        clients = [region.client() for region in world.regions]
        added = 0
        for _ in range(40):
            for client in clients:
                added += write_some(client, rng, 15)
        world.settle("after writes everywhere")
        same_values(clients)
        buckets = [region.buckets() for region in world.regions]
        check(len(buckets[0]) > KEYS and all(found == buckets[0] for found in buckets),
              "the digests of all buckets agree")
        check(counted(clients[0]) == added, f"{counted(clients[0])} counted, {added} added")
        check(not any(pipe.transfers for r in world.regions for pipe in r.pipes_in.values()),
              "a state was transferred")
        world.close(gently=True)
    finally:
        world.close()


class Scan:
    """A node's engine that asks for the region's state, part by part."""

    def __init__(self, region):
        self.lines = []
        self.tool = Tool(region.id, self.lines.append,
                         *("cluster=" + address(server) for server in region.servers))
        self.comes(0)

    def comes(self, after):
        """It sees the cluster, anew since that many lines."""
        eventually(lambda: any(line.startswith("up ") for line in self.lines[after:]),
                   lambda: f"not up: {[line[:200] for line in self.lines[-5:]]}")

    def part(self, cursor):
        """What comes behind the cursor: the next one, and the name of the table; (0, None): none."""
        known = len(self.lines)
        self.tool.say(f"scan 9 {cursor} 131072")

        def answers():
            return [line for line in self.lines[known:] if line.startswith("scanned 9 ")]
        words = eventually(answers, "a scan is not answered")[0].split(" ")
        return (int(words[2]), words[4][4:20]) if words[3] == "ok" else (0, None)

    def rest(self, cursor):
        """How many parts there are from there on, all of one table, whose name is given."""
        tables = []
        while cursor != 0 or not tables:
            cursor, table = self.part(cursor)
            tables.append(table)
        check(len(set(tables)) == 1, f"one scan, several tables: {set(tables)}")
        return len(tables), tables[0]


def scan_goes_on(region):
    """A scan goes on at another engine; not where a shard has begun anew, or slots have moved."""
    one = Scan(region)
    whole, table = one.rest(0)
    cursor = 0
    for _ in range(whole // 2):
        cursor, _ = one.part(cursor)
    one.tool.close(gently=True)
    two = Scan(region)
    left, found = two.rest(cursor)
    check((left, found) == (whole - whole // 2, table), f"{left} of {whole} parts, {found}, {table}")
    cursor, _ = two.part(0)
    region.servers[0].run("CLUSTER", "SETSLOT", 0, "STABLE")  # as one ends a move
    while cursor != 0:
        cursor, found = two.part(cursor)
    check(found is None, "slots have moved meanwhile, and the scan ends well")
    cursor, table = two.part(0)
    known = len(two.lines)
    region.servers[0].kill()
    region.servers[0].start()
    two.comes(known)
    check(two.part(cursor)[1] not in (None, table), "a shard that began anew has another table")
    two.tool.close(gently=True)


def catching_up(program):
    """A stream that a shard no longer holds is made up for by the state of all shards; a state goes
    to the right shards."""
    world = World()
    rng = random.Random(2)
    try:
        one, two = cluster(program, 1, 3, ring=65536), cluster(program, 2, 3)
        clients = [one.client(), two.client()]
        added = sum(write_some(client, rng, 500) for client in clients)
        filler = "x" * 20000
        for at in range(120):  # the ring forgets what was written before
            clients[0].run("SET", f"string:{at % KEYS}", filler)
        open_world(world, one, two)
        added += sum(write_some(client, rng, 200) for client in clients)
        world.settle("after a transfer")
        same_values(clients)
        check(counted(clients[1]) == added, f"{counted(clients[1])} counted, {added} added")
        check(two.pipes_in[1].transfers > 0, "no state was transferred")
        scan_goes_on(two)
        world.close(gently=True)
    finally:
        world.close()


def restarts(program):
    """An orderly restart of a shard loses nothing that others hold, and they are not asked for it."""
    world = World()
    rng = random.Random(3)
    try:
        one, two = cluster(program, 1, 3), single(world, program, 2)
        open_world(world, one, two)
        clients = [one.client(), two.client()]
        added = sum(write_some(client, rng, 200) for client in clients)
        world.settle("before the restart")
        check(counted(clients[0]) == added, f"{counted(clients[0])} counted, {added} added")
        with World.lock:
            position = two.pipes_in[1].position
        one.servers[1].process.terminate()
        one.servers[1].process.wait()
        eventually(lambda: not one.up, "the restart is not noticed")
        one.servers[1].start()
        eventually(lambda: one.up, lambda: f"not up: {one.tool.lines[-5:]}")
        check(counted(clients[0]) == added, f"{counted(clients[0])} after restart, {added} added")
        check(position <= one.told["recovered"] or one.told["first"] == 0 or
              position >= one.told["first"],
              f"region 2 holds {position}, which region 1 takes for lost: {one.told}")
        added += sum(write_some(client, rng, 200) for client in clients)
        world.settle("after the restart")
        check(counted(clients[0]) == added, f"{counted(clients[0])} counted, {added} added")
        world.close(gently=True)
    finally:
        world.close()


def failover(program):
    """A shard's primary dies and its replica takes over; then another is handed over by
    CLUSTER FAILOVER. The replicas have all that was logged."""
    world = World()
    rng = random.Random(4)
    try:
        one = cluster(program, 1, 3, replicas=1, node_timeout_ms=1500)
        two = single(world, program, 2)
        open_world(world, one, two)
        clients = [one.client(), two.client()]
        added = sum(write_some(client, rng, 300) for client in clients)
        world.settle("before the failover")
        for server in one.primaries():
            server.run("WAIT", 1, 5000)
        victim = one.primaries()[0]
        eventually(lambda: caught_up(one), "the replicas do not catch up")
        victim.kill()
        eventually(lambda: not one.up, "the loss of a primary is not noticed")
        added += write_some(clients[1], rng, 100)
        eventually(lambda: one.up, lambda: f"no failover: {one.tool.lines[-6:]}")
        added += sum(write_some(client, rng, 200) for client in clients)
        world.settle("after the failover")
        same_values(clients)
        check(counted(clients[0]) == added, f"{counted(clients[0])} counted, {added} added")
        victim.start()
        eventually(lambda: caught_up(one), "the old primary does not follow")
        follower = next(s for s in one.servers if s.run("ROLE")[0] == b"slave")
        downs = one.downs
        eventually(lambda: takes_over(follower), lambda: f"no FAILOVER: {follower.log()}", 40)
        eventually(lambda: one.downs > downs and one.up,
                   lambda: f"the new primary is not used: {one.tool.lines[-6:]}")
        added += sum(write_some(client, rng, 200) for client in clients)
        world.settle("after CLUSTER FAILOVER")
        check(counted(clients[1]) == added, f"{counted(clients[1])} counted, {added} added")
        world.close(gently=True)
    finally:
        world.close()


def takes_over(server):
    """Asks for it until it happens: the primary may not have heard enough of its replica yet."""
    try:
        server.run("CLUSTER", "FAILOVER")
        eventually(lambda: server.run("ROLE")[0] == b"master", "", 2)
        return True
    except (Error, Failed):
        return False


def caught_up(region):
    """Every server that is no primary has all that its primary has."""
    for server in region.servers:
        if server.process.poll() is not None:
            continue
        role = server.run("ROLE")
        if role[0] == b"slave" and role[3] != b"connected":
            return False
    offsets = {}
    for server in region.servers:
        if server.process.poll() is None:
            role = server.run("ROLE")
            if role[0] == b"master":
                offsets[server.port] = role[1]
    for server in region.servers:
        if server.process.poll() is None:
            role = server.run("ROLE")
            if role[0] == b"slave" and role[4] < offsets.get(role[2], 0):
                return False
    return True


def sentinel(program):
    """A primary with two replicas under Sentinel: full and partial synchronisation carry the
    metadata; the promoted replica goes on with the stream; the old primary is no more merged into.
    """
    world = World()
    rng = random.Random(5)
    sentinels = []
    try:
        one, two = Region(1), single(world, program, 2)
        one.servers = [Server(program, 1).start() for _ in range(3)]
        first = one.servers[0]
        client = one.client()
        added = write_some(client, rng, 300)  # before the replicas: full synchronisation
        for replica in one.servers[1:]:
            replica.run("REPLICAOF", ADDRESS, first.port)
        for _ in range(3):
            guard = Server(program, 1, "--sentinel", module=False)
            conf = guard.folder + "/sentinel.conf"
            with open(conf, "w") as file:
                file.write(f"port {guard.port}\nbind {ADDRESS}\ndir {guard.folder}\n"
                           f"sentinel announce-ip {ADDRESS}\n"
                           f"sentinel monitor mine {ADDRESS} {first.port} 2\n"
                           "sentinel down-after-milliseconds mine 1000\n"
                           "sentinel failover-timeout mine 5000\n")
            guard.arguments = [conf, "--sentinel"]
            sentinels.append(guard.start())
        eventually(lambda: caught_up(one), "the replicas do not synchronise")
        world.connect(one, two)
        two.attach("redis=" + address(two.servers[0]))
        one.attach("master=mine", *("replica=" + address(guard) for guard in sentinels))
        eventually(lambda: one.up and two.up, lambda: f"not up: {one.tool.lines}")
        clients = [client, two.client()]
        added += sum(write_some(each, rng, 300) for each in clients)
        world.settle("before the failover")
        eventually(lambda: all_same(one), "the replicas differ from their primary")
        # A connection that breaks: partial synchronisation.
        first.run("CLIENT", "KILL", "TYPE", "replica")
        added += sum(write_some(each, rng, 100) for each in clients)
        world.settle("after partial synchronisation")
        eventually(lambda: all_same(one), "the replicas differ after partial synchronisation")
        eventually(lambda: known_to_sentinels(sentinels), "the sentinels do not know each other")
        first.kill()
        eventually(lambda: not one.up, "the loss of the primary is not noticed")
        eventually(lambda: one.up and agreed(one, sentinels),
                   lambda: f"no failover: {one.tool.lines[-6:]}")
        one.servers.append(one.servers.pop(0))
        client.forget(first.port)
        client.owners.clear()
        client.default = one.primaries()[0].port
        added += sum(write_some(each, rng, 200) for each in clients)
        world.settle("after the failover")
        same_values(clients)
        check(counted(client) == added, f"{counted(client)} counted, {added} added")
        first.start()  # comes back as a primary, until a sentinel finds it
        eventually(lambda: first.role() == b"slave", "the old primary stays one")
        added += sum(write_some(each, rng, 100) for each in clients)
        world.settle("with the old primary back")
        eventually(lambda: caught_up(one) and all_same(one), "the old primary differs")
        check(counted(client) == added, f"{counted(client)} counted, {added} added")
        world.close(gently=True)
    finally:
        for guard in sentinels:
            guard.close()
        world.close()


def all_same(region):
    return len({server.run("MERIDIAN.DIGEST") for server in region.servers
                if server.process.poll() is None}) == 1


def primary_told(guard):
    told = guard.run("SENTINEL", "MASTER", "mine")
    return dict(zip(told[::2], told[1::2]))


def agreed(region, sentinels):
    """All name the one primary, and none is at a failover: where two began at once, the second one
    ends seconds after the first, and takes another replica."""
    told = [primary_told(guard) for guard in sentinels]
    names = {(fields[b"port"], fields[b"flags"]) for fields in told}
    return names == {(str(server.port).encode(), b"master") for server in region.primaries()}


def known_to_sentinels(sentinels):
    for guard in sentinels:
        fields = primary_told(guard)
        if fields[b"num-slaves"] != b"2" or fields[b"num-other-sentinels"] != b"2":
            return False
    return True


def another_region(program):
    """A region's Redis that is told to follow another region's refuses its data."""
    world = World()
    try:
        one, two = single(world, program, 1), single(world, program, 2)
        world.regions = [one, two]
        one.client().run("SET", "mine", "1")
        two.client().run("SET", "theirs", "2")
        two.servers[0].may_end = True
        two.servers[0].run("REPLICAOF", ADDRESS, one.servers[0].port)
        log = two.servers[0].folder + "/log"
        eventually(lambda: "can be loaded only by the region that wrote it" in
                   open(log, errors="replace").read(), "the other region's data is not refused")
    finally:
        world.close()


def reshard(region, source, target, slots):
    """redis-cli moves so many slots, keys included."""
    ids = [server.run("CLUSTER", "MYID").decode() for server in region.servers]
    told = subprocess.run([region.cli, "--cluster", "reshard", address(region.servers[0]),
                           "--cluster-from", ids[source], "--cluster-to", ids[target],
                           "--cluster-slots", str(slots), "--cluster-yes"],
                          capture_output=True, text=True, timeout=120, check=False)
    check(told.returncode == 0, f"reshard says {told.stdout[-400:]}{told.stderr[-400:]}")


class Writer(threading.Thread):
    """Writes to one region until it is told to stop."""

    def __init__(self, region, seed):
        super().__init__(daemon=True)
        self.client, self.rng = region.client(), random.Random(seed)
        self.added, self.wrote, self.failed, self.ends = 0, 0, None, False
        self.start()

    def run(self):
        try:
            while not self.ends:
                self.added += write_some(self.client, self.rng, 10)
                self.wrote += 10
        except Exception as error:  # pylint: disable=broad-except
            self.failed = error

    def end(self):
        self.ends = True
        self.join(30)
        check(self.failed is None, f"a writer broke: {self.failed!r}")
        return self.added


def resharding(program):
    """Slots move between servers with their keys, while both regions write: nothing is lost, and
    nothing that was deleted comes back. On a machine with far too much to do, servers may hear so
    late of each other that the cluster itself drops keys (slot_taken); then it is tried again."""
    for last in (False, True):
        if slots_move_under_writes(program, last):
            return


def dropped(world):
    """The cluster has, and says so some seconds after the slots have last changed."""
    logs = [server.folder + "/log" for region in world.regions for server in region.servers]
    try:
        eventually(lambda: any("their values are lost to this region" in
                               open(log, errors="replace").read() for log in logs), "", limit=10)
    except Failed:
        return False
    return True


def slots_move_under_writes(program, last):
    """False: the cluster dropped keys, and it is not the last try."""
    world = World()
    rng = random.Random(6)
    try:
        one, two = cluster(program, 1, 3), single(world, program, 2)
        open_world(world, one, two)
        clients = [one.client(), two.client()]
        added = sum(write_some(client, rng, 300) for client in clients)
        writers = [Writer(one, 1), Writer(two, 2)]
        for source, target in ((0, 1), (1, 2), (2, 0)):
            reshard(one, source, target, 150)
        eventually(lambda: all(writer.wrote > 100 for writer in writers), "nobody writes")
        added += sum(writer.end() for writer in writers)
        world.settle("after the moves")
        checked = subprocess.run([one.cli, "--cluster", "check", address(one.servers[0])],
                                 capture_output=True, text=True, timeout=30, check=False)
        check("All 16384 slots covered" in checked.stdout and "WARNING" not in checked.stdout,
              f"the cluster is not whole: {checked.stdout}")
        same_values(clients)
        check(counted(clients[1]) == added, f"{counted(clients[1])} counted, {added} added")
        keys = {key for server in one.servers for key in server.run("KEYS", "*")}
        check(not any(key.startswith(b"meridian:") for key in keys), f"what helped stays: {keys}")
        added += sum(write_some(client, rng, 200) for client in clients)
        world.settle("some time after the moves")
        same_values(clients)
        world.close(gently=True)
        return True
    except Failed:
        if last or not dropped(world):
            raise
        print("again: the cluster itself dropped keys", flush=True)
        return False
    finally:
        world.close()


def moved_tombstones(program):
    """What was deleted in a slot, before and while it leaves, is known where it goes: an older write
    that comes later stays dead. And a clock that is behind there does not lose a later write."""
    world = World()
    try:
        one = cluster(program, 1, 3)
        source = next(s for s in one.servers if slot_here(s, "k"))
        target = next(s for s in one.servers if s is not source)
        far = Server(program, 2).start()
        world.servers = [far]
        for key in ("k", "{k}2"):
            far.run("SET", key, "old")
        last, _, deltas = far.run("MERIDIAN.TAIL", 0, 65536, 0)
        for server in one.servers:
            server.run("MERIDIAN.MEMBERS", 1, 2)
        source.run("SET", "k", "newer")
        source.run("SET", "{k}2", "newer")
        source.run("SET", "{k}3", "stays")
        source.run("DEL", "k")
        slot = source.run("CLUSTER", "KEYSLOT", "k")
        slot_begins(slot, source, target)
        source.run("DEL", "{k}2")
        check(source.run("MIGRATE", ADDRESS, target.port, "nokey{k}", 0, 5000) == b"NOKEY", "NOKEY")
        slot_ends(slot, source, target, one.servers, "{k}3", "nokey{k}")
        tombstones = [int(info(server)["meridian_tombstones"]) for server in (source, target)]
        check(tombstones == [0, 2], f"tombstones: {tombstones}")
        merge(target, 0, last, deltas)
        check([target.run("EXISTS", key) for key in ("k", "{k}2", "{k}3")] == [0, 0, 1],
              "the dead stay dead, the living lives")
        check("outside of the regions" in str(refused(target, "MIGRATE", ADDRESS, source.port, "{k}3", 0, 5000)),
              "a key of a slot that stays")
        for server in (source, target):  # the same from the log
            server.kill()
            server.start()
            eventually(lambda s=server: b"cluster_state:ok" in s.run("CLUSTER", "INFO"), "no cluster")
        tombstones = [int(info(server)["meridian_tombstones"]) for server in (source, target)]
        check(tombstones == [0, 2], f"after a restart: {tombstones}")
        check(target.run("GET", "{k}3") == b"stays" and
              int(info(target)["meridian_keys"]) == 1, "the key, too")
        one.tool = None
    finally:
        close_all(one.servers + [far])


def slot_begins(slot, source, target):
    """To move, by the commands of redis-cli."""
    ids = [server.run("CLUSTER", "MYID").decode() for server in (source, target)]
    target.run("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
    source.run("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])


def slot_ends(slot, source, target, servers, *keys):
    """The rest of its keys, and everybody is told."""
    check(source.run("MIGRATE", ADDRESS, target.port, "", 0, 5000, "KEYS", *keys) == b"OK",
          f"MIGRATE {keys}")
    ends = target.run("CLUSTER", "MYID").decode()
    for server in (target, source, *servers):
        server.run("CLUSTER", "SETSLOT", slot, "NODE", ends)


def position(server, origin):
    return dict(server.run("MERIDIAN.POSITIONS")[5]).get(origin, 0)


def moved_behind(program):
    """A batch of another region is at the server to which a key goes, and not yet at the one that it
    leaves. The batch comes once more; what a local removal took meanwhile stays away."""
    servers = []
    try:
        one = cluster(program, 1, 3)
        far = Server(program, 2).start()
        servers = one.servers + [far]
        source = next(s for s in one.servers if slot_here(s, "k"))
        target = next(s for s in one.servers if s is not source)
        slot = source.run("CLUSTER", "KEYSLOT", "k")
        own = next(key for key in (f"own{i}" for i in range(999)) if slot_here(target, key))
        for server in one.servers:
            server.run("MERIDIAN.MEMBERS", 1, 2)
        far.run("SADD", "k", "before")
        first, _, deltas = far.run("MERIDIAN.TAIL", 0, 65536, 0)
        for server in one.servers:
            merge(server, 0, first, deltas if server is source else b"")
        far.run("SADD", own, "gone")
        mine, _, of_mine = far.run("MERIDIAN.TAIL", first, 65536, 0)
        far.run("SADD", "k", "after")
        far.run("SET", "{k}new", "made")
        last, _, rest = far.run("MERIDIAN.TAIL", mine, 65536, 0)
        merge(target, first, last, of_mine)
        check(target.run("SREM", own, "gone") == 1, "the target has its part")
        slot_begins(slot, source, target)
        slot_ends(slot, source, target, one.servers, "k")
        check([position(s, 2) for s in (source, target)] == [first, first], "the target is ahead")
        for server in (source, target):
            merge(server, first, last, of_mine + rest if server is target else b"")
        for restarted in (False, True):  # the same from the log
            if restarted:
                target.kill()
                target.start()
                eventually(lambda: b"cluster_state:ok" in target.run("CLUSTER", "INFO"), "no cluster")
            check(position(target, 2) == last, f"at {position(target, 2)}, not {last}")
            members = target.run("SMEMBERS", "k")
            check(sorted(members) == [b"after", b"before"], f"the key that moved has {members}")
            check(target.run("GET", "{k}new") == b"made", "a key that was not there yet")
            check(target.run("EXISTS", own) == 0, "what was removed meanwhile stays away")
        one.tool = None
    finally:
        close_all(servers)


def merge(server, after, last, deltas):
    connection = Connection(server.port)
    layout, importing, _ = connection.call("MERIDIAN.SHARD")
    if importing:
        connection.call("ASKING")
    reply = connection.call("MERIDIAN.MERGE", 2, after, last, deltas, "LAYOUT", layout, "LAST")
    connection.close()
    check("LAYOUT" not in str(reply), f"MERGE said {reply}")
    return reply


def made_anew(program):
    """One batch of another region deletes a key and makes it again, while its slot leaves: what comes
    after the delete is for the server that the slot goes to, by whatever command it was made."""
    servers = []
    try:
        one = cluster(program, 1, 3)
        far = Server(program, 2).start()
        servers = one.servers + [far]
        source = next(s for s in one.servers if slot_here(s, "k"))
        target = next(s for s in one.servers if s is not source)
        slot = source.run("CLUSTER", "KEYSLOT", "k")
        makes = {"{k}string": ("SET", "{k}string"), "{k}list": ("RPUSH", "{k}list"),
                 "{k}set": ("SADD", "{k}set"), "{k}stream": ("XADD", "{k}stream", "*", "field"),
                 "{k}hll": ("PFADD", "{k}hll")}
        for server in one.servers:
            server.run("MERIDIAN.MEMBERS", 1, 2)
        for make in makes.values():
            far.run(*make, "old")
        first, _, deltas = far.run("MERIDIAN.TAIL", 0, 65536, 0)
        for server in one.servers:
            merge(server, 0, first, deltas if server is source else b"")
        far.run("SREM", "{k}set", "old")
        far.run("DEL", *(key for key in makes if key != "{k}set"))
        for make in makes.values():
            far.run(*make, "new")
        far.run("SADD", "{k}stays", "member")
        last, _, deltas = far.run("MERIDIAN.TAIL", first, 65536, 0)
        slot_begins(slot, source, target)
        source.run("SADD", "{k}set", "other")
        told, moved = merge(source, first, last, deltas)
        check(told == last, f"the source is at {told}, not {last}")
        check(source.run("SMEMBERS", "{k}set") in ([b"new", b"other"], [b"other", b"new"]),
              "a key that is still there gets all of it")
        merge(target, first, last, moved)
        slot_ends(slot, source, target, one.servers, "{k}set")
        found = [target.run("GET", "{k}string"), target.run("LRANGE", "{k}list", 0, -1),
                 sorted(target.run("SMEMBERS", "{k}set")), target.run("XLEN", "{k}stream"),
                 target.run("PFCOUNT", "{k}hll"), target.run("SMEMBERS", "{k}stays")]
        check(found == [b"new", [b"new"], [b"new", b"other"], 1, 1, [b"member"]], f"found {found}")
        target.kill()
        target.start()
        eventually(lambda: b"cluster_state:ok" in target.run("CLUSTER", "INFO"), "no cluster")
        check(target.run("PFCOUNT", "{k}hll") == 1, "the HyperLogLog, from the log")
        one.tool = None
    finally:
        close_all(servers)


def slot_taken(program):
    """A server loses a slot with keys in it, by the word of another one alone, and deletes them, as
    every cluster does. The other region keeps them, and the digests tell; a write brings one back."""
    world = World()
    try:
        one, two = cluster(program, 1, 3), single(world, program, 2)
        open_world(world, one, two)
        clients = [one.client(), two.client()]
        clients[0].run("ZADD", "{k}zset", 1, "a", 2, "b")
        clients[0].run("SET", "{k}string", "value")
        clients[0].run("SET", "other", "value")
        clients[1].run("SADD", "{k}set", "member")
        world.settle("before")
        source = next(s for s in one.servers if slot_here(s, "{k}"))
        target = next(s for s in one.servers if s is not source)
        slot = source.run("CLUSTER", "KEYSLOT", "{k}")
        target.run("CLUSTER", "BUMPEPOCH")
        target.run("CLUSTER", "SETSLOT", slot, "NODE", target.run("CLUSTER", "MYID").decode())
        eventually(lambda: source.run("CLUSTER", "GETKEYSINSLOT", slot, 9) == [], "the keys stay")
        eventually(lambda: not world.same(), "the digests are the same")
        eventually(lambda: "`meridian verify` names them" in open(source.folder + "/log").read(),
                   "nobody is told")
        clients[1].run("SET", "{k}string", "again")
        clients[1].run("SET", "later", "value")
        eventually(lambda: one.client().run("GET", "{k}string") == b"again" and
                   one.client().run("GET", "later") == b"value", "the next write does not come")
        kept = [clients[1].run("ZCARD", "{k}zset"), clients[1].run("SCARD", "{k}set"),
                clients[1].run("GET", "other"), one.client().run("GET", "other")]
        check(kept == [2, 1, b"value", b"value"], f"the other region has {kept}")
    finally:
        world.close()


def grown(program):
    """How a region outgrows its cluster: a larger, empty one takes its place and is filled from the
    other regions."""
    world = World()
    rng = random.Random(7)
    try:
        old, two = cluster(program, 1, 3), single(world, program, 2)
        open_world(world, old, two)
        clients = [old.client(), two.client()]
        added = sum(write_some(client, rng, 300) for client in clients)
        world.settle("before")
        old_position = two.pipes_in[1].position
        old.close(gently=True)
        new = cluster(program, 1, 4)
        with World.lock:
            world.connect(new, two)
            # As the node does when it learns that its Redis lacks what a peer holds.
            new.pipes_in[2].wants_state = True
            two.pipes_in[1].position, two.pipes_in[1].known = old_position, True
        new.attach("cluster=" + address(new.servers[2]))
        eventually(lambda: new.up, lambda: f"not up: {new.tool.lines}")
        eventually(lambda: new.pipes_in[2].state is None and not new.pipes_in[2].wants_state,
                   "the state does not come")
        clients[0] = new.client()
        added += write_some(clients[1], rng, 100)
        world.settle("after the move")
        added += sum(write_some(client, rng, 100) for client in clients)
        world.settle("with the new cluster")
        same_values(clients)
        check(counted(clients[0]) == added, f"{counted(clients[0])} counted, {added} added")
        world.close(gently=True)
    finally:
        world.close()


ALL = [streams, catching_up, restarts, failover, sentinel, another_region, resharding, moved_tombstones,
       moved_behind, made_anew, slot_taken, grown]
