// Reads a JSON list of Accept-Encoding values, writes the list of what the npm package `negotiator` prefers for each.
const Negotiator = require("negotiator");
const offered = ["br", "zstd", "gzip", "deflate", "identity"];
const headers = JSON.parse(require("fs").readFileSync(0, "utf8"));
const answers = headers.map((header) => new Negotiator({ headers: { "accept-encoding": header } }).encodings(offered, { preferred: offered })[0] ?? null);
process.stdout.write(JSON.stringify(answers));
