BEGIN TRANSACTION;
CREATE TABLE bad (          -- exact due instants of the first and last row of 100 ms that was lost (unsent apart)
  bucket INTEGER, series INTEGER, first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL,
  PRIMARY KEY (bucket, series)
) WITHOUT ROWID;
INSERT INTO "bad" VALUES(0,0,50000000,50000000);
INSERT INTO "bad" VALUES(1,0,150000000,150000000);
INSERT INTO "bad" VALUES(2,0,250000000,250000000);
INSERT INTO "bad" VALUES(3,0,350000000,350000000);
INSERT INTO "bad" VALUES(4,0,450000000,450000000);
INSERT INTO "bad" VALUES(5,0,550000000,550000000);
INSERT INTO "bad" VALUES(6,0,650000000,650000000);
INSERT INTO "bad" VALUES(7,0,750000000,750000000);
INSERT INTO "bad" VALUES(8,0,850000000,850000000);
INSERT INTO "bad" VALUES(9,0,950000000,950000000);
INSERT INTO "bad" VALUES(10,0,1050000000,1050000000);
INSERT INTO "bad" VALUES(11,0,1150000000,1150000000);
INSERT INTO "bad" VALUES(12,0,1250000000,1250000000);
INSERT INTO "bad" VALUES(13,0,1350000000,1350000000);
INSERT INTO "bad" VALUES(14,0,1450000000,1450000000);
INSERT INTO "bad" VALUES(15,0,1550000000,1550000000);
INSERT INTO "bad" VALUES(16,0,1650000000,1650000000);
INSERT INTO "bad" VALUES(17,0,1750000000,1750000000);
INSERT INTO "bad" VALUES(18,0,1850000000,1850000000);
INSERT INTO "bad" VALUES(19,0,1950000000,1950000000);
INSERT INTO "bad" VALUES(20,0,2050000000,2050000000);
INSERT INTO "bad" VALUES(21,0,2150000000,2150000000);
INSERT INTO "bad" VALUES(22,0,2250000000,2250000000);
INSERT INTO "bad" VALUES(23,0,2350000000,2350000000);
INSERT INTO "bad" VALUES(24,0,2450000000,2450000000);
INSERT INTO "bad" VALUES(25,0,2550000000,2550000000);
INSERT INTO "bad" VALUES(26,0,2650000000,2650000000);
INSERT INTO "bad" VALUES(27,0,2750000000,2750000000);
INSERT INTO "bad" VALUES(28,0,2850000000,2850000000);
INSERT INTO "bad" VALUES(29,0,2950000000,2950000000);
CREATE TABLE checkpoints (  -- what had been counted by then since the start: rows that are older may be gone
  second INTEGER, what TEXT,  -- unsent, counters, lag, failures_left_out, server and its name; all as in those tables
  sums BLOB NOT NULL,       -- zlib of uint32[k], then uint64[k], packed as histograms are: steps from key to key; sum
  PRIMARY KEY (second, what)  -- keys: series x causes (or counters) + which; bin; 0; series
) WITHOUT ROWID;
INSERT INTO "checkpoints" VALUES(0,'lag',X'789C030000000001');
CREATE TABLE counters (     -- what was counted beside the outcomes, whole run
  series INTEGER, counter TEXT, n INTEGER NOT NULL, PRIMARY KEY (series, counter)
) WITHOUT ROWID;
INSERT INTO "counters" VALUES(0,'received_octets',1560);
INSERT INTO "counters" VALUES(0,'sent_octets',3060);
CREATE TABLE doubts (       -- of a merged run, or one made from a log: what each prober did wrong itself
  id TEXT NOT NULL, text TEXT NOT NULL, lanes TEXT NOT NULL, hides_loss INTEGER NOT NULL  -- lanes: JSON, [] for all
);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "facts" VALUES('conntrack','0 entries at the start, 0 at the end, of at most 262,144');
INSERT INTO "facts" VALUES('cpu steal','0.142 % of the time of all cores');
INSERT INTO "facts" VALUES('dnsprobe','0.1.0');
INSERT INTO "facts" VALUES('gso','off');
INSERT INTO "facts" VALUES('kernel','6.18.44-fc-v669');
INSERT INTO "facts" VALUES('metrics','host of prober');
INSERT INTO "facts" VALUES('ports','pool:2 (as asked)');
INSERT INTO "facts" VALUES('python','3.11.7');
INSERT INTO "facts" VALUES('receive_buffer','4194304');
INSERT INTO "facts" VALUES('tick','exact');
INSERT INTO "facts" VALUES('workers','1');
CREATE TABLE failures (     -- rows that were not good, exactly: at most 10 of each series and second, 50,000 in all
  series INTEGER NOT NULL, due_ns INTEGER NOT NULL, sent_ns INTEGER NOT NULL, question TEXT NOT NULL,
  outcome INTEGER NOT NULL, errno INTEGER NOT NULL, phase TEXT NOT NULL,
  source_port INTEGER NOT NULL, query_id INTEGER NOT NULL
);
INSERT INTO "failures" VALUES(0,50000000,50603238,'silent.example.com A',9,0,'',38243,40982);
INSERT INTO "failures" VALUES(0,150000000,150108051,'silent.example.com A',9,0,'',38243,56200);
INSERT INTO "failures" VALUES(0,250000000,250070485,'silent.example.com A',9,0,'',38243,526);
INSERT INTO "failures" VALUES(0,350000000,350048244,'silent.example.com A',9,0,'',38243,63155);
INSERT INTO "failures" VALUES(0,450000000,450085964,'silent.example.com A',9,0,'',38243,63748);
INSERT INTO "failures" VALUES(0,550000000,550088939,'silent.example.com A',9,0,'',38243,5708);
INSERT INTO "failures" VALUES(0,650000000,650050660,'silent.example.com A',9,0,'',38243,44696);
INSERT INTO "failures" VALUES(0,750000000,750070206,'silent.example.com A',9,0,'',38243,54601);
INSERT INTO "failures" VALUES(0,850000000,850054898,'silent.example.com A',9,0,'',38243,59997);
INSERT INTO "failures" VALUES(0,950000000,950069864,'silent.example.com A',9,0,'',38243,45038);
INSERT INTO "failures" VALUES(0,1050000000,1050051076,'silent.example.com A',9,0,'',38243,10795);
INSERT INTO "failures" VALUES(0,1150000000,1150217146,'silent.example.com A',9,0,'',38243,23754);
INSERT INTO "failures" VALUES(0,1250000000,1250050764,'silent.example.com A',9,0,'',38243,31418);
INSERT INTO "failures" VALUES(0,1350000000,1350083254,'silent.example.com A',9,0,'',38243,52984);
INSERT INTO "failures" VALUES(0,1450000000,1450186286,'silent.example.com A',9,0,'',38243,21767);
INSERT INTO "failures" VALUES(0,1550000000,1553006352,'silent.example.com A',9,0,'',38243,28500);
INSERT INTO "failures" VALUES(0,1650000000,1650136583,'silent.example.com A',9,0,'',38243,29482);
INSERT INTO "failures" VALUES(0,1750000000,1750105973,'silent.example.com A',9,0,'',38243,43780);
INSERT INTO "failures" VALUES(0,1850000000,1850174607,'silent.example.com A',9,0,'',38243,3469);
INSERT INTO "failures" VALUES(0,1950000000,1950165554,'silent.example.com A',9,0,'',38243,4753);
INSERT INTO "failures" VALUES(0,2050000000,2053225644,'silent.example.com A',9,0,'',38243,30515);
INSERT INTO "failures" VALUES(0,2150000000,2153237004,'silent.example.com A',9,0,'',38243,26024);
INSERT INTO "failures" VALUES(0,2250000000,2250159589,'silent.example.com A',9,0,'',38243,33421);
INSERT INTO "failures" VALUES(0,2350000000,2350203646,'silent.example.com A',9,0,'',38243,28654);
INSERT INTO "failures" VALUES(0,2450000000,2450062274,'silent.example.com A',9,0,'',38243,44756);
INSERT INTO "failures" VALUES(0,2550000000,2550092008,'silent.example.com A',9,0,'',38243,9795);
INSERT INTO "failures" VALUES(0,2650000000,2650720729,'silent.example.com A',9,0,'',38243,13411);
INSERT INTO "failures" VALUES(0,2750000000,2750033969,'silent.example.com A',9,0,'',38243,7355);
INSERT INTO "failures" VALUES(0,2850000000,2850100525,'silent.example.com A',9,0,'',38243,60811);
INSERT INTO "failures" VALUES(0,2950000000,2950094977,'silent.example.com A',9,0,'',38243,43610);
CREATE TABLE histograms (   -- durations of rows due in [second, second + width)
  second INTEGER, width INTEGER,  -- 10, and 1 for the series that lost something in that second
  counts BLOB NOT NULL,     -- zlib of uint32[2, k], k lowest octets first, then the next k, ...: steps from one key,
  --                           (series x 3 + duration) x 832 + bin, to the next; count
  maxima BLOB NOT NULL,     -- likewise: uint32[k], steps of series x 3 + duration; uint64[k], the longest in ns
  -- duration 0 latency (due to reply, good rows alone), 1 rtt (send to reply), 2 connect (TCP); bin b begins at
  -- 1024 ns x 2^(b div 32) x (1 + (b mod 32)/32)
  PRIMARY KEY (second, width)
) WITHOUT ROWID;
INSERT INTO "histograms" VALUES(0,1,X'789CFBCEC9C228EDC8C7CA283D95891108749C2519E080898124C008074C300669062001008ED602CA',X'789C6360640083CF76992109C60C70000023B40283');
INSERT INTO "histograms" VALUES(1,1,X'789CFBCDC2C8C4C86DC2B15A9F85918399010A98180801264646461066062382CAE10000F24F024B',X'789C6360640083E8BF460EA2CC0C7000001BCB01E4');
INSERT INTO "histograms" VALUES(2,1,X'789CFBC9C2C8C4C4E8C1146D27C4A9C1C8CAC8CEEE59CD00074C0CA402462C806443900000CF150319',X'789C6360640083497F0AAB730498A03C0606002A5D02FB');
CREATE TABLE in_flight (    -- rows due in a second and undecided; planned = sum of outcomes + in flight
  second INTEGER, series INTEGER, n INTEGER NOT NULL,
  PRIMARY KEY (second, series)
) WITHOUT ROWID;
CREATE TABLE intervals (    -- [from_ns, to_ns): a pod's counted life, a watch gap, lost seconds
  from_ns INTEGER, to_ns INTEGER NOT NULL, kind TEXT, text TEXT NOT NULL, source TEXT NOT NULL, subject TEXT,
  PRIMARY KEY (kind, subject, from_ns)
) WITHOUT ROWID;
CREATE TABLE lag (          -- send minus due of every row that was sent; bins as in histograms
  bin INTEGER PRIMARY KEY, n INTEGER NOT NULL
);
INSERT INTO "lag" VALUES(161,1);
INSERT INTO "lag" VALUES(175,1);
INSERT INTO "lag" VALUES(177,3);
INSERT INTO "lag" VALUES(180,1);
INSERT INTO "lag" VALUES(181,1);
INSERT INTO "lag" VALUES(184,1);
INSERT INTO "lag" VALUES(187,1);
INSERT INTO "lag" VALUES(188,1);
INSERT INTO "lag" VALUES(194,3);
INSERT INTO "lag" VALUES(195,2);
INSERT INTO "lag" VALUES(197,2);
INSERT INTO "lag" VALUES(199,1);
INSERT INTO "lag" VALUES(200,1);
INSERT INTO "lag" VALUES(201,1);
INSERT INTO "lag" VALUES(202,1);
INSERT INTO "lag" VALUES(203,1);
INSERT INTO "lag" VALUES(204,2);
INSERT INTO "lag" VALUES(206,1);
INSERT INTO "lag" VALUES(209,2);
INSERT INTO "lag" VALUES(211,2);
INSERT INTO "lag" VALUES(212,1);
INSERT INTO "lag" VALUES(219,1);
INSERT INTO "lag" VALUES(223,1);
INSERT INTO "lag" VALUES(225,1);
INSERT INTO "lag" VALUES(230,1);
INSERT INTO "lag" VALUES(232,1);
INSERT INTO "lag" VALUES(234,1);
INSERT INTO "lag" VALUES(237,1);
INSERT INTO "lag" VALUES(241,1);
INSERT INTO "lag" VALUES(242,1);
INSERT INTO "lag" VALUES(245,1);
INSERT INTO "lag" VALUES(246,1);
INSERT INTO "lag" VALUES(247,2);
INSERT INTO "lag" VALUES(248,1);
INSERT INTO "lag" VALUES(249,1);
INSERT INTO "lag" VALUES(292,1);
INSERT INTO "lag" VALUES(299,1);
INSERT INTO "lag" VALUES(312,1);
INSERT INTO "lag" VALUES(324,3);
INSERT INTO "lag" VALUES(325,1);
INSERT INTO "lag" VALUES(348,1);
INSERT INTO "lag" VALUES(365,1);
INSERT INTO "lag" VALUES(369,2);
INSERT INTO "lag" VALUES(370,1);
INSERT INTO "lag" VALUES(399,1);
INSERT INTO "lag" VALUES(419,1);
INSERT INTO "lag" VALUES(459,1);
CREATE TABLE lookups (      -- what clients looked up as an application's resolver does, beside the lanes
  at_ns INTEGER NOT NULL, client TEXT NOT NULL, name TEXT NOT NULL,
  fate TEXT NOT NULL,       -- found, not_found (a server said so), failed, unfinished (the run ended before it)
  took_ns INTEGER NOT NULL,
  error TEXT NOT NULL       -- what an application would print
);
CREATE TABLE marks (        -- what happened, to whom (subject), who says so (source)
  at_ns INTEGER NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL, source TEXT NOT NULL, subject TEXT NOT NULL
);
CREATE TABLE metrics (      -- what others count: CoreDNS pods, kube-proxies, this machine
  metric INTEGER PRIMARY KEY,
  source TEXT NOT NULL, subject TEXT NOT NULL, name TEXT NOT NULL,  -- coredns, a pod, servfail
  UNIQUE (source, subject, name)
);
CREATE TABLE outcomes (outcome INTEGER PRIMARY KEY, label TEXT NOT NULL, blame TEXT NOT NULL, help TEXT NOT NULL);
INSERT INTO "outcomes" VALUES(0,'answer','nobody','NOERROR with a record of the type asked for');
INSERT INTO "outcomes" VALUES(1,'nodata','nobody','NOERROR without a record of that type (RFC 2308, 2.2)');
INSERT INTO "outcomes" VALUES(2,'nxdomain','server','the name does not exist (RCODE 3)');
INSERT INTO "outcomes" VALUES(3,'servfail','server','the server failed (RCODE 2): often an upstream of CoreDNS that is dead');
INSERT INTO "outcomes" VALUES(4,'refused','server','RCODE 5: policy, or CoreDNS forward''s max_concurrent');
INSERT INTO "outcomes" VALUES(5,'other_rcode','server','any other RCODE: FORMERR, NOTIMP, ...');
INSERT INTO "outcomes" VALUES(6,'truncated','server','TC bit set: ask again by TCP; wins over any RCODE');
INSERT INTO "outcomes" VALUES(7,'wrong_answer','server','NOERROR, but not the addresses expected');
INSERT INTO "outcomes" VALUES(8,'malformed','server','a reply to our question that cannot be parsed');
INSERT INTO "outcomes" VALUES(9,'timeout','network','silence until the timeout; for TCP with its phase, connect or answer');
INSERT INTO "outcomes" VALUES(10,'connection_refused','network','ICMP port unreachable, or a TCP RST on connect');
INSERT INTO "outcomes" VALUES(11,'network_error','network','unreachable or prohibited: ICMP, no route, EPERM of a local filter');
INSERT INTO "outcomes" VALUES(12,'connection_lost','network','an open TCP connection ended before the answer');
INSERT INTO "outcomes" VALUES(13,'unsent','prober','due, but not sent: this prober''s own fault, counted with its cause');
CREATE TABLE run (          -- one row
  version TEXT NOT NULL,    -- of dnsprobe
  name TEXT NOT NULL,
  command TEXT NOT NULL,
  scenario TEXT NOT NULL,   -- YAML as given, '' for an ad hoc run
  started_unix_ns INTEGER NOT NULL,  -- t0: every other *_ns counts from here
  planned_ns INTEGER NOT NULL,       -- how long the run was meant to last
  objectives TEXT NOT NULL,          -- JSON array of text
  flushed_ns INTEGER NOT NULL DEFAULT 0,      -- when the file was last written
  end_ns INTEGER,                    -- NULL: the run never finished
  cut TEXT NOT NULL DEFAULT '',      -- why it ended early, '' if it did not
  failures_left_out INTEGER NOT NULL DEFAULT 0,
  lag_max_ns INTEGER NOT NULL DEFAULT 0
);
INSERT INTO "run" VALUES('0.1.0','adhoc','dnsprobe run -s 127.0.0.1 -p 41391 -n answer.example.com -n silent.example.com -Q 20 -l 3 -t 500ms --ports pool:2 --nsid -o run.db','',1795295574186276896,3000000000,'[]',3505268921,3000000000,'',0,22803862);
CREATE TABLE samples (      -- from at_ms on (since t0) it was value, until the next row; NULL: it could not be read
  metric INTEGER, at_ms INTEGER, value NUMERIC, PRIMARY KEY (metric, at_ms)
) WITHOUT ROWID;
CREATE TABLE seconds (      -- rows due in a second in which this series had nothing but good ones
  second INTEGER, series INTEGER, outcome INTEGER, good INTEGER, n INTEGER NOT NULL,
  PRIMARY KEY (second, series, outcome, good)
) WITHOUT ROWID;
CREATE TABLE seen (         -- of a merged run: what became of the rows of each prober, while they counted
  vantage INTEGER, lane TEXT, target TEXT, planned INTEGER NOT NULL, good INTEGER NOT NULL, lost INTEGER NOT NULL,
  unsent INTEGER NOT NULL, in_flight INTEGER NOT NULL, PRIMARY KEY (vantage, lane, target)
) WITHOUT ROWID;
CREATE TABLE seen_windows ( -- of a merged run: the disruptions that each prober saw
  vantage INTEGER, lane TEXT, target TEXT, from_ns INTEGER, to_ns INTEGER NOT NULL, resolution_ns INTEGER NOT NULL,
  outcome INTEGER NOT NULL, planned INTEGER NOT NULL, lost INTEGER NOT NULL,
  PRIMARY KEY (vantage, lane, target, from_ns)
) WITHOUT ROWID;
CREATE TABLE series (       -- what one lane asks one target for one type
  series INTEGER PRIMARY KEY,
  lane TEXT NOT NULL, target TEXT NOT NULL, target_kind TEXT NOT NULL,
  address TEXT NOT NULL, port INTEGER NOT NULL, side TEXT NOT NULL,
  transport TEXT NOT NULL, ports TEXT NOT NULL, qtype TEXT NOT NULL,
  questions TEXT NOT NULL,  -- JSON array of [name, type, what counts as good, null or [EDNS size, DO, NSID]],
  question_count INTEGER NOT NULL,  -- of which there are so many; the first 1,000 are kept
  weights TEXT NOT NULL,    -- JSON array: how often each is asked among the others; empty: all alike
  rate TEXT NOT NULL,       -- queries a second at the most, a fraction: 100/3
  shape TEXT NOT NULL,      -- JSON: arrivals even, poisson (drawn from seed) or max (no schedule; so many outstanding
                            -- as window, each asked pause ns after the outcome of the one before it, 0: at once);
                            -- legs: [[ns, share of rate at its beginning, at its end], ...] from t0 on
  pair INTEGER NOT NULL,    -- 1: rows of one number leave one socket as A and AAAA, back to back
  gso INTEGER NOT NULL,     -- up to so many rows leave as one burst
  share TEXT NOT NULL,      -- which of its rows this run asked: 1/4: those whose number modulo 4 is 1
  offset_ns INTEGER NOT NULL, start_ns INTEGER NOT NULL,  -- row i of a constant rate: at start + offset + i/rate
  stop_ns INTEGER NOT NULL, timeout_ns INTEGER NOT NULL
);
INSERT INTO "series" VALUES(0,'udp-pool','127.0.0.1','server','127.0.0.1',41391,'','udp','pool:2','A','[["answer.example.com", "A", "answer", [1232, false, true]], ["silent.example.com", "A", "answer", [1232, false, true]]]',2,'[]','20','{"arrivals": "even", "seed": 0, "window": 0, "legs": [], "pause": 0}',0,1,'0/1',0,0,3000000000,500000000);
CREATE TABLE servers (      -- rows by the server that answered them, as it named itself (NSID, RFC 5001), whole run
  series INTEGER, nsid TEXT, n INTEGER NOT NULL,
  first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL,  -- when the first and the last of these n rows were due
  PRIMARY KEY (series, nsid)
) WITHOUT ROWID;
CREATE TABLE tenths (       -- rows due in 100 ms: only for seconds in which this series had a row that was not good,
                            -- and all of a closed loop with a pause, whose gaps nobody can calculate;
                            -- in a merged run that is decided for each shard, so a second may be in both tables
  bucket INTEGER, series INTEGER, outcome INTEGER, good INTEGER, n INTEGER NOT NULL,
  PRIMARY KEY (bucket, series, outcome, good)
) WITHOUT ROWID;
INSERT INTO "tenths" VALUES(0,0,0,1,1);
INSERT INTO "tenths" VALUES(0,0,9,0,1);
INSERT INTO "tenths" VALUES(1,0,0,1,1);
INSERT INTO "tenths" VALUES(1,0,9,0,1);
INSERT INTO "tenths" VALUES(2,0,0,1,1);
INSERT INTO "tenths" VALUES(2,0,9,0,1);
INSERT INTO "tenths" VALUES(3,0,0,1,1);
INSERT INTO "tenths" VALUES(3,0,9,0,1);
INSERT INTO "tenths" VALUES(4,0,0,1,1);
INSERT INTO "tenths" VALUES(4,0,9,0,1);
INSERT INTO "tenths" VALUES(5,0,0,1,1);
INSERT INTO "tenths" VALUES(5,0,9,0,1);
INSERT INTO "tenths" VALUES(6,0,0,1,1);
INSERT INTO "tenths" VALUES(6,0,9,0,1);
INSERT INTO "tenths" VALUES(7,0,0,1,1);
INSERT INTO "tenths" VALUES(7,0,9,0,1);
INSERT INTO "tenths" VALUES(8,0,0,1,1);
INSERT INTO "tenths" VALUES(8,0,9,0,1);
INSERT INTO "tenths" VALUES(9,0,0,1,1);
INSERT INTO "tenths" VALUES(9,0,9,0,1);
INSERT INTO "tenths" VALUES(10,0,0,1,1);
INSERT INTO "tenths" VALUES(10,0,9,0,1);
INSERT INTO "tenths" VALUES(11,0,0,1,1);
INSERT INTO "tenths" VALUES(11,0,9,0,1);
INSERT INTO "tenths" VALUES(12,0,0,1,1);
INSERT INTO "tenths" VALUES(12,0,9,0,1);
INSERT INTO "tenths" VALUES(13,0,0,1,1);
INSERT INTO "tenths" VALUES(13,0,9,0,1);
INSERT INTO "tenths" VALUES(14,0,0,1,1);
INSERT INTO "tenths" VALUES(14,0,9,0,1);
INSERT INTO "tenths" VALUES(15,0,0,1,1);
INSERT INTO "tenths" VALUES(15,0,9,0,1);
INSERT INTO "tenths" VALUES(16,0,0,1,1);
INSERT INTO "tenths" VALUES(16,0,9,0,1);
INSERT INTO "tenths" VALUES(17,0,0,1,1);
INSERT INTO "tenths" VALUES(17,0,9,0,1);
INSERT INTO "tenths" VALUES(18,0,0,1,1);
INSERT INTO "tenths" VALUES(18,0,9,0,1);
INSERT INTO "tenths" VALUES(19,0,0,1,1);
INSERT INTO "tenths" VALUES(19,0,9,0,1);
INSERT INTO "tenths" VALUES(20,0,0,1,1);
INSERT INTO "tenths" VALUES(20,0,9,0,1);
INSERT INTO "tenths" VALUES(21,0,0,1,1);
INSERT INTO "tenths" VALUES(21,0,9,0,1);
INSERT INTO "tenths" VALUES(22,0,0,1,1);
INSERT INTO "tenths" VALUES(22,0,9,0,1);
INSERT INTO "tenths" VALUES(23,0,0,1,1);
INSERT INTO "tenths" VALUES(23,0,9,0,1);
INSERT INTO "tenths" VALUES(24,0,0,1,1);
INSERT INTO "tenths" VALUES(24,0,9,0,1);
INSERT INTO "tenths" VALUES(25,0,0,1,1);
INSERT INTO "tenths" VALUES(25,0,9,0,1);
INSERT INTO "tenths" VALUES(26,0,0,1,1);
INSERT INTO "tenths" VALUES(26,0,9,0,1);
INSERT INTO "tenths" VALUES(27,0,0,1,1);
INSERT INTO "tenths" VALUES(27,0,9,0,1);
INSERT INTO "tenths" VALUES(28,0,0,1,1);
INSERT INTO "tenths" VALUES(28,0,9,0,1);
INSERT INTO "tenths" VALUES(29,0,0,1,1);
INSERT INTO "tenths" VALUES(29,0,9,0,1);
CREATE TABLE unsent (       -- unsent rows by cause, whole run
  series INTEGER, cause TEXT, n INTEGER NOT NULL, PRIMARY KEY (series, cause)
) WITHOUT ROWID;
CREATE TABLE vantages (     -- of a merged run: the probers, each with its shard I/N, and when it was there
  vantage INTEGER PRIMARY KEY, shard TEXT NOT NULL, node TEXT NOT NULL, zone TEXT NOT NULL, pod TEXT NOT NULL,
  source TEXT NOT NULL,     -- run file; or log: no latencies, and rows inside of windows are spread evenly
  from_ns INTEGER NOT NULL, to_ns INTEGER NOT NULL
);
CREATE VIEW counts AS       -- every finished row, by the second in which it was due
  SELECT second, series, outcome, good, n FROM seconds
  UNION ALL
  SELECT bucket / 10, series, outcome, good, sum(n) FROM tenths GROUP BY 1, 2, 3, 4;
CREATE VIEW series_totals AS
  WITH done AS (
    SELECT series, sum(n) AS n, sum(n * good) AS good, sum(n * (1 - good) * (outcome = 13)) AS unsent
    FROM counts GROUP BY series),
  waiting AS (SELECT series, sum(n) AS n FROM in_flight GROUP BY series)
  SELECT series, lane, target, transport, ports, qtype,
         coalesce(done.n, 0) + coalesce(waiting.n, 0) AS planned,
         coalesce(good, 0) AS good,
         coalesce(done.n - good - unsent, 0) AS lost,
         coalesce(unsent, 0) AS unsent,
         coalesce(waiting.n, 0) AS in_flight
  FROM series LEFT JOIN done USING (series) LEFT JOIN waiting USING (series);
CREATE VIEW loss_per_second AS  -- what was not good, when and where
  SELECT second, strftime('%Y-%m-%dT%H:%M:%SZ', started_unix_ns / 1000000000 + second, 'unixepoch') AS at,
         lane, target, qtype, label AS outcome, sum(n) AS n
  FROM counts JOIN series USING (series) JOIN outcomes USING (outcome), run
  WHERE good = 0 GROUP BY second, lane, target, qtype, label;
COMMIT;
