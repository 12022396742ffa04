//// the classic listing
console.log("script start");
setTimeout(() => console.log("timeout"), 0);
Promise.resolve().then(() => console.log("promise 1")).then(() => console.log("promise 2"));
process.nextTick(() => console.log("nextTick"));
console.log("script end");

//// ticks come before microtasks, whichever was first
Promise.resolve().then(() => console.log("promise"));
queueMicrotask(() => console.log("microtask"));
process.nextTick(() => console.log("tick 1"));
process.nextTick(() => console.log("tick 2"));

//// a tick made in a microtask waits for all microtasks
Promise.resolve().then(() => { console.log("p1"); process.nextTick(() => console.log("tick")); }).then(() => console.log("p2"));
Promise.resolve().then(() => console.log("p3"));

//// a microtask made in a tick waits for all ticks
process.nextTick(() => { console.log("t1"); Promise.resolve().then(() => console.log("p")); });
process.nextTick(() => { console.log("t2"); process.nextTick(() => console.log("t3")); });

//// ticks make ticks
let left = 4;
const again = () => { console.log(`tick ${left}`); if (--left) process.nextTick(again); };
process.nextTick(again);
Promise.resolve().then(() => console.log("promise"));
setTimeout(() => console.log("timeout"), 0);

//// async functions run up to their first await
async function one() { console.log("one start"); await two(); console.log("one end"); }
async function two() { console.log("two"); }
console.log("start");
setTimeout(() => console.log("timeout"), 0);
one();
new Promise((resolve) => { console.log("executor"); resolve(); }).then(() => console.log("then"));
console.log("end");

//// queueMicrotask and then share a queue
queueMicrotask(() => console.log("a"));
Promise.resolve().then(() => console.log("b"));
queueMicrotask(() => { console.log("c"); queueMicrotask(() => console.log("e")); });
Promise.resolve().then(() => console.log("d"));

//// timers come in the order of their times
setTimeout(() => console.log("60"), 60);
setTimeout(() => console.log("20"), 20);
setTimeout(() => console.log("40"), 40);
setTimeout(() => console.log("0"), 0);

//// timers of one time come in the order of their making, and 0 is 1
setTimeout(() => console.log("one"), 1);
setTimeout(() => console.log("zero"), 0);
setTimeout(() => console.log("none"));
setTimeout(() => console.log("negative"), -5);
setTimeout(() => console.log("text"), "1");
setTimeout(() => console.log("nonsense"), "soon");

//// ticks and microtasks run between two timers that are due together
for (const name of ["a", "b"]) {
  setTimeout(() => {
    console.log(`timer ${name}`);
    Promise.resolve().then(() => console.log(`promise ${name}`));
    process.nextTick(() => console.log(`tick ${name}`));
  }, 5);
}

//// ticks and microtasks run between two immediates
for (const name of ["a", "b"]) {
  setImmediate(() => {
    console.log(`immediate ${name}`);
    Promise.resolve().then(() => console.log(`promise ${name}`));
    process.nextTick(() => console.log(`tick ${name}`));
  });
}

//// from a timer an immediate comes before a timer
setTimeout(() => {
  setTimeout(() => console.log("timeout"), 0);
  setImmediate(() => console.log("immediate"));
  process.nextTick(() => console.log("tick"));
}, 0);

//// an immediate made in an immediate comes in the next turn
setImmediate(() => { console.log("a"); setImmediate(() => console.log("c")); });
setImmediate(() => console.log("b"));

//// a cleared immediate does not run
const second = (console.log("start"), setImmediate(() => console.log("never")));
const third = setImmediate(() => console.log("never either"));
clearImmediate(second);
setImmediate(() => { console.log("last"); clearImmediate(third); clearImmediate(undefined); });
clearImmediate(third);

//// an immediate can clear the one behind it
let behind;
setImmediate(() => { console.log("first"); clearImmediate(behind); });
behind = setImmediate(() => console.log("never"));
setImmediate(() => console.log("third"));

//// a cleared timer does not run, by object or by number
const timer = setTimeout(() => console.log("never"), 10);
const number = +setTimeout(() => console.log("never"), 10);
const late = setTimeout(() => console.log("never"), 40);
clearTimeout(timer);
clearTimeout(number);
clearTimeout(null);
setTimeout(() => { console.log("clears"); clearTimeout(late); }, 5);
setTimeout(() => console.log("end"), 60);

//// an interval repeats until it is cleared
let rounds = 0;
const interval = setInterval((word) => {
  console.log(word, rounds);
  if (++rounds === 3) clearInterval(interval);
}, 10, "round");
setTimeout(() => console.log("end"), 100);

//// callbacks get their arguments
setTimeout((...all) => console.log("timeout", all.join()), 0, 1, 2);
process.nextTick((...all) => console.log("tick", all.join()), 3, 4);
setTimeout(() => setImmediate((...all) => console.log("immediate", all.join()), 5, 6), 10);

//// a callback must be a function
for (const f of [() => setTimeout("code"), () => setImmediate(), () => process.nextTick(null), () => queueMicrotask({})]) {
  try { f(); } catch (error) { console.log(error.name, error.code); }
}

//// what runs in a timer of an interval with an await
const log = (text) => console.log(text);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
(async () => { log("a1"); await pause(10); log("a2"); await pause(40); log("a3"); })();
(async () => { log("b1"); await pause(30); log("b2"); await pause(40); log("b3"); })();

//// two async functions take turns
const steps = async (name) => { for (let i = 0; i < 3; i++) { console.log(name, i); await null; } };
steps("a");
steps("b").then(() => console.log("b done"));

//// Promise.all keeps the order of its promises
const after = (ms, value) => new Promise((resolve) => setTimeout(() => { console.log("done", value); resolve(value); }, ms));
Promise.all([after(40, "a"), after(10, "b"), "c"]).then((all) => console.log(all.join()));

//// Promise.all fails with the first failure, and the others go on
const fails = (ms, why) => new Promise((_, reject) => setTimeout(() => { console.log("fails", why); reject(new Error(why)); }, ms));
Promise.all([fails(40, "late"), fails(10, "early")]).catch((error) => console.log("caught", error.message));

//// Promise.allSettled waits for all
const settle = (ms, value) => new Promise((resolve, reject) => setTimeout(value < 0 ? reject : resolve, ms, value));
Promise.allSettled([settle(20, 1), settle(10, -1), settle(5, 3)]).then((all) => console.log(all.map((one) => `${one.status} ${one.value ?? one.reason}`).join()));

//// Promise.race with a time limit
const work = (ms) => new Promise((resolve) => setTimeout(resolve, ms, "worked"));
const limit = (ms) => new Promise((_, reject) => setTimeout(() => reject(new Error("too late")), ms));
Promise.race([work(10), limit(50)]).then((value) => console.log(value));
Promise.race([work(80), limit(30)]).catch((error) => console.log(error.message));

//// Promise.any takes the first that works
const no = (ms) => new Promise((_, reject) => setTimeout(reject, ms, new Error(`no ${ms}`)));
Promise.any([no(5), new Promise((resolve) => setTimeout(resolve, 30, "yes")), no(10)]).then((value) => console.log(value));
Promise.any([no(5), no(60)]).catch((error) => console.log(error.constructor.name, error.errors.map((one) => one.message).join()));

//// a thenable takes a turn more
const thenable = { then(resolve) { console.log("then called"); resolve("thenable"); } };
Promise.resolve(thenable).then((value) => console.log(value));
Promise.resolve().then(() => console.log(1)).then(() => console.log(2)).then(() => console.log(3));

//// a promise returned from then takes two turns more
Promise.resolve().then(() => { console.log(0); return Promise.resolve(4); }).then((value) => console.log(value));
Promise.resolve().then(() => console.log(1)).then(() => console.log(2)).then(() => console.log(3)).then(() => console.log(5)).then(() => console.log(6));

//// return and return await
const plain = async () => "plain";
const wrapped = async () => plain();
const awaited = async () => await plain();
wrapped().then((value) => console.log("wrapped", value));
awaited().then((value) => console.log("awaited", value));
plain().then((value) => console.log(value));

//// finally passes on what it was given
Promise.resolve("kept").finally(() => { console.log("finally"); return "lost"; }).then((value) => console.log(value));
Promise.reject(new Error("bad")).finally(() => console.log("finally too")).catch((error) => console.log(error.message));

//// async generators wait for their consumer
async function* count() { for (let i = 0; i < 3; i++) { console.log("yields", i); yield i; } }
(async () => { for await (const i of count()) console.log("takes", i); console.log("end"); })();
Promise.resolve().then(() => console.log("between"));

//// an executor runs at once, and only the first answer counts
new Promise((resolve, reject) => { console.log("executor"); resolve("first"); reject(new Error("second")); throw new Error("third"); }).then((value) => console.log(value), (error) => console.log(error.message));
console.log("after");

//// an unhandled rejection is told after ticks and microtasks
process.on("unhandledRejection", (reason, promise) => console.log("unhandled", reason.message, promise instanceof Promise));
Promise.reject(new Error("nobody"));
const handled = Promise.reject(new Error("somebody"));
handled.catch((error) => console.log("handled", error.message));
process.nextTick(() => console.log("tick"));
setTimeout(() => console.log("timeout"), 0);

//// a rejection that is handled late
process.on("unhandledRejection", (reason) => console.log("unhandled", reason));
process.on("rejectionHandled", () => console.log("handled after all"));
const lateOne = Promise.reject("late");
setTimeout(() => { console.log("timeout"); lateOne.catch((reason) => console.log("caught", reason)); }, 10);

//// what a timer throws is told, and the others go on
process.on("uncaughtException", (error, origin) => console.log("uncaught", error.message, origin));
setTimeout(() => { throw new Error("in a timer"); }, 5);
setTimeout(() => console.log("next timer"), 30);
setImmediate(() => console.log("immediate"));

//// what a tick, a microtask and an immediate throw is told
process.on("uncaughtException", (error, origin) => console.log("uncaught", error.message, origin));
setTimeout(() => process.nextTick(() => { throw new Error("tick"); }), 0);
setTimeout(() => queueMicrotask(() => { throw new Error("microtask"); }), 20);
setTimeout(() => setImmediate(() => { throw new Error("immediate"); }), 40);

//// an unhandled rejection without a listener is an uncaught exception
process.on("uncaughtException", (error, origin) => console.log("uncaught", error.message, origin));
Promise.reject(new Error("nobody"));
setTimeout(() => console.log("goes on"), 10);

//// listeners of process
const listen = (word) => console.log("heard", word);
process.once("word", (word) => console.log("once", word));
process.on("word", listen);
process.prependListener("word", () => console.log("first"));
console.log(process.emit("word", "a"), process.listenerCount("word"));
process.off("word", listen);
console.log(process.emit("word", "b"), process.emit("other"));

//// a warning is told in a tick
process.on("warning", (warning) => console.log(warning.name, warning.message, warning.code));
process.emitWarning("careful", "Custom", "C1");
process.nextTick(() => console.log("tick"));
console.log("sync");

//// a time beyond 32 bits is a millisecond, and a warning
process.on("warning", (warning) => console.log(warning.name));
setTimeout(() => console.log("at once"), 2 ** 31);
setTimeout(() => console.log("later"), 20);

//// beforeExit may go on, exit may not
let times = 0;
process.on("beforeExit", (code) => {
  console.log("beforeExit", code);
  if (++times < 3) setTimeout(() => console.log("more", times), 5);
});
process.on("exit", (code) => { console.log("exit", code); setTimeout(() => console.log("never"), 0); process.nextTick(() => console.log("never")); });
setTimeout(() => console.log("timeout"), 5);

//// a timer that was let go keeps nothing going
const free = setTimeout(() => console.log("never"), 300).unref();
const kept = setTimeout(() => console.log("kept"), 20).unref().ref();
setInterval(() => console.log("never"), 300).unref();
console.log(free.hasRef(), kept.hasRef());

//// a timer can be started anew
const pushed = setTimeout(() => console.log("pushed"), 60);
setTimeout(() => { console.log("refresh"); pushed.refresh(); }, 20);
setTimeout(() => console.log("between"), 70);
let twice = 0;
const renewed = setTimeout(() => { console.log("renewed"); if (twice++ === 0) renewed.refresh(); }, 160);

//// a long chain of microtasks comes before a timer
let links = 0;
const link = () => { if (++links < 500) return Promise.resolve().then(link); console.log("linked", links); };
setTimeout(() => console.log("timeout"), 0);
Promise.resolve().then(link);

//// everything at once
setTimeout(() => {
  console.log("timer 1");
  process.nextTick(() => { console.log("tick 1"); Promise.resolve().then(() => console.log("promise 1")); });
  Promise.resolve().then(() => { console.log("promise 2"); process.nextTick(() => console.log("tick 2")); });
  setImmediate(() => { console.log("immediate 1"); process.nextTick(() => console.log("tick 3")); queueMicrotask(() => console.log("microtask")); });
  setImmediate(() => console.log("immediate 2"));
  setTimeout(() => console.log("timer 2"), 0);
}, 5);
console.log("sync");
