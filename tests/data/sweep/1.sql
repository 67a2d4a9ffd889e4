BEGIN TRANSACTION;
CREATE TABLE cells (        -- every combination, in the order given
  cell INTEGER PRIMARY KEY,
  vary TEXT NOT NULL,       -- JSON: the value's name on each axis of vary
  under TEXT NOT NULL,
  settings TEXT NOT NULL,   -- JSON array: what is put into the scenario, PATH=VALUE
  planned_seconds REAL NOT NULL
);
INSERT INTO "cells" VALUES(1,'["0s"]','[]','["lab.lameduck=0s"]',3.0);
INSERT INTO "cells" VALUES(2,'["1s"]','[]','["lab.lameduck=1s"]',3.0);
INSERT INTO "cells" VALUES(3,'["2s"]','[]','["lab.lameduck=2s"]',3.0);
CREATE TABLE results (      -- what each lane lost on each target
  cell INTEGER, repeat INTEGER, lane TEXT, target TEXT, target_kind TEXT NOT NULL,
  transport TEXT NOT NULL, ports TEXT NOT NULL,
  planned INTEGER NOT NULL, good INTEGER NOT NULL, lost INTEGER NOT NULL,
  lost_at_least INTEGER NOT NULL,  -- without what may be no fault of DNS
  unsent INTEGER NOT NULL, longest_seconds REAL NOT NULL, class TEXT NOT NULL,  -- of the longest disruption
  healthy_seconds REAL,            -- from the first step to the first query that was lost after it
  PRIMARY KEY (cell, repeat, lane, target)
);
INSERT INTO "results" VALUES(1,1,'vip-udp-fresh','kube-dns','service','udp','fresh',300,294,6,6,0,0.06,'timeout',NULL);
INSERT INTO "results" VALUES(1,1,'vip-udp-fixed','kube-dns','service','udp','fixed',300,300,0,0,0,0.0,'',NULL);
INSERT INTO "results" VALUES(1,1,'pods','kube-dns','pod','udp','fresh',300,293,7,7,0,0.07,'timeout',NULL);
CREATE TABLE runs (         -- every cell as often as it is repeated
  cell INTEGER, repeat INTEGER,
  place INTEGER NOT NULL,   -- when its turn is: a random order, one repeat of all cells after the other
  state TEXT NOT NULL DEFAULT 'waiting', -- waiting; crowded: to be run again, alone; done; failed: could not be run
  why TEXT NOT NULL DEFAULT '',  -- it failed; or is no evidence that nothing was lost, though it ran
  beside INTEGER,           -- how many others ran when it began
  started_unix_ns INTEGER,
  wall_seconds REAL,        -- from when its process was started until it had ended
  verdict TEXT,
  rollout_seconds REAL,     -- from the first step to the last pod_gone, pod_ready or rollout_done after it
  margin_fresh REAL,        -- seconds: how long before its end nothing new was sent to a pod, the least of all pods
  margin_reused REAL,       -- the same for source ports that are used again
  ended_by TEXT,            -- what ended the Service for good: lameduck over, SIGKILL, readiness lost; '' if it went on
  run BLOB,                 -- its run file, zlib: dnsprobe report FILE --cell CELL.REPEAT
  PRIMARY KEY (cell, repeat)
) WITHOUT ROWID;
INSERT INTO "runs" VALUES(1,1,1,'done','',0,1,2.0,'FAIL',1.0,0.1,0.1,'',NULL);
INSERT INTO "runs" VALUES(2,1,2,'failed','no lab',0,1,2.0,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "runs" VALUES(3,1,0,'waiting','',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE sweep (        -- one row
  version TEXT NOT NULL,    -- of dnsprobe
  name TEXT NOT NULL,
  command TEXT NOT NULL,    -- that began it
  scenario TEXT NOT NULL,   -- YAML as given, with what was set
  objectives TEXT NOT NULL, -- JSON array of text; empty: the default ones
  vary TEXT NOT NULL,       -- JSON: names of the axes one can choose on
  under TEXT NOT NULL,      -- JSON: names of the axes that are circumstances
  repeats INTEGER NOT NULL,
  seed INTEGER NOT NULL,    -- of the order
  started_unix_ns INTEGER NOT NULL
);
INSERT INTO "sweep" VALUES('0.1.0','swept','dnsprobe run x.yaml --lab','name: swept
duration: 3s
lab:
  coredns: stand-in
  replicas: 2
  readiness_period: 0.3s
  readiness_failures: 1
  teardown: 0.1s
lanes:
  - name: vip-udp-fresh
    target: service
    rate: 100
    questions: &names [kubernetes.default.svc.cluster.local]
  - name: vip-udp-fixed
    target: service
    ports: fixed
    rate: 50
    questions: *names
  - name: pods
    target: pods
    rate: 10
    questions: *names
steps:
  - wait: 0.5s
  - scale: 1
objectives:
  - loss(vip-*) <= 30%
matrix:
  repeats: 2
  vary:
    lab.lameduck: [0s, 1s, 2s]
','[]','["lab.lameduck"]','[]',1,1706579721,1795306310642015650);
COMMIT;
