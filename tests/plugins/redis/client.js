// An unmodified program of node-redis against a region: node client.js PORT HOST write|read
const assert = require("assert");
const {createClient} = require("redis");

const [port, host, what] = process.argv.slice(2);

async function write(client) {
    assert.equal(await client.set("j:string", "value", {EX: 5000}), "OK");
    assert.equal(await client.incrBy("j:number", 5), 5);
    assert.equal(await client.hSet("j:hash", {f: "1", g: "2"}), 2);
    assert.equal(await client.sAdd("j:set", ["a", "b"]), 2);
    assert.equal(await client.rPush("j:list", ["a", "b"]), 2);
    const replies = await client.multi().incr("j:number").sAdd("j:set", ["b", "c"]).get("j:string").exec();
    assert.deepEqual(replies.map(String), ["6", "1", "value"]);
    assert.equal(await client.eval("return redis.call('INCR', KEYS[1])", {keys: ["j:number"]}), 7);
    await Promise.all([...Array(100).keys()].map(i => client.set(`j:pipe:${i}`, String(i))));
    const heard = new Promise(async (resolve) => {
        const other = client.duplicate();
        await other.connect();
        await other.subscribe("j:news", async (message) => { await other.quit(); resolve(message); });
        await client.publish("j:news", "hello");
    });
    assert.equal(await heard, "hello");
    const popper = client.duplicate();
    await popper.connect();
    const popped = popper.blPop("j:wait", 5);
    await client.rPush("j:wait", "now");
    assert.equal((await popped).element, "now");
    await popper.quit();
}

async function read(client) {
    assert.equal(await client.get("j:string"), "value");
    assert.equal(await client.get("j:number"), "7");
    assert.deepEqual({...await client.hGetAll("j:hash")}, {f: "1", g: "2"});
    assert.deepEqual([...await client.sMembers("j:set")].sort(), ["a", "b", "c"]);
    assert.deepEqual(await client.lRange("j:list", 0, -1), ["a", "b"]);
    const found = new Set();
    for await (const keys of client.scanIterator({MATCH: "j:pipe:*", COUNT: 10}))
        [].concat(keys).forEach(key => found.add(key));
    assert.equal(found.size, 100);
}

(async () => {
    const client = createClient({socket: {host, port: Number(port)}});
    await client.connect();
    await (what === "write" ? write : read)(client);
    await client.quit();
})().catch(error => { console.error(error); process.exit(1); });
