"""The tables of an inspection log, and the steps from each version of them to the next."""

APPLICATION_ID = 0x63666C77  # "cflw" in the header: what tells our files from other databases

# a step for each version; a file of version N has had the first N
MIGRATIONS = (
    """
    CREATE TABLE runs (
        id TEXT PRIMARY KEY,
        started TEXT NOT NULL,
        version TEXT NOT NULL,
        engine TEXT NOT NULL,
        engine_sha256 TEXT NOT NULL,
        sidecar_sha256 TEXT NOT NULL,
        device TEXT NOT NULL,
        threshold REAL,
        map_threshold REAL,
        who TEXT NOT NULL,
        settings TEXT NOT NULL,
        options TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE inspections (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        run TEXT NOT NULL,
        part TEXT,
        recipe TEXT NOT NULL,
        source TEXT NOT NULL,
        name TEXT NOT NULL,
        frame INTEGER NOT NULL,
        captured_s REAL NOT NULL,
        camera_s REAL,
        trigger TEXT,
        asked_s REAL,
        age_ms REAL NOT NULL,
        answer_ms REAL,
        late INTEGER NOT NULL,
        answer INTEGER NOT NULL,
        decision TEXT,
        verdict TEXT NOT NULL,
        score REAL,
        threshold REAL NOT NULL,
        reason TEXT NOT NULL,
        boxes TEXT NOT NULL,
        latency_ms TEXT NOT NULL
    );
    CREATE INDEX inspections_by_part ON inspections (part) WHERE part IS NOT NULL;
    CREATE INDEX inspections_by_time ON inspections (captured_s);
    CREATE TABLE audit (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        time TEXT NOT NULL,
        who TEXT NOT NULL,
        origin TEXT NOT NULL,
        what TEXT NOT NULL,
        old TEXT NOT NULL,
        new TEXT NOT NULL,
        run TEXT NOT NULL
    );
    CREATE TABLE in_force (
        what TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) WITHOUT ROWID;
    """,
)
INSPECTION_COLUMNS = (
    "run",
    "part",
    "recipe",
    "source",
    "name",
    "frame",
    "captured_s",
    "camera_s",
    "trigger",
    "asked_s",
    "age_ms",
    "answer_ms",
    "late",
    "answer",
    "decision",
    "verdict",
    "score",
    "threshold",
    "reason",
    "boxes",
    "latency_ms",
)
AUDIT_COLUMNS = ("time", "who", "origin", "what", "old", "new", "run")
