// @ts-check
const assert = require("node:assert");
/** @type {import("./tidegate").OnMetric} */
const onMetric = (metric) => { assert.ok(metric); return null; };
module.exports = { onMetric, dir: __dirname };
