// How (lookup or resolve4), a name -> "seconds, tab, error or nothing, tab, addresses": what Node.js says of it.
const dns = require("dns");
const [how, name] = process.argv.slice(2);
const from = process.hrtime.bigint();

function said(problem, found = []) {
  const took = Number(process.hrtime.bigint() - from) / 1e9;
  process.stdout.write(`${took.toFixed(6)}\t${problem ? problem.message : ""}\t${found.map((one) => one.address ?? one).join(" ")}`);
}

if (how === "lookup") dns.lookup(name, { all: true }, said);
else dns.resolve4(name, said);
