"""The tables of an inspection log, and the steps from each version of them to the next."""

from collections.abc import Sequence

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
    """
    CREATE TABLE recipes (
        run TEXT NOT NULL,
        recipe TEXT NOT NULL,
        engine TEXT NOT NULL,
        engine_sha256 TEXT NOT NULL,
        sidecar_sha256 TEXT NOT NULL,
        PRIMARY KEY (run, recipe)
    ) WITHOUT ROWID;
    ALTER TABLE inspections ADD COLUMN parts TEXT NOT NULL DEFAULT '';
    """,
    """
    CREATE TABLE checks (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        time TEXT NOT NULL,
        time_s REAL NOT NULL,
        who TEXT NOT NULL,
        origin TEXT NOT NULL,
        recipe TEXT NOT NULL,
        engine_sha256 TEXT NOT NULL,
        limits TEXT NOT NULL,
        passed INTEGER NOT NULL,
        after INTEGER NOT NULL,
        parts TEXT NOT NULL
    )
    """,
    """
    CREATE TABLE marks (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        time TEXT NOT NULL,
        judgement INTEGER NOT NULL,
        kind TEXT NOT NULL,
        reason TEXT NOT NULL,
        who TEXT NOT NULL,
        origin TEXT NOT NULL,
        picture TEXT NOT NULL,
        about TEXT NOT NULL
    );
    CREATE INDEX marks_by_judgement ON marks (judgement);
    """,
    """
    CREATE TABLE comparisons (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        began TEXT NOT NULL,
        recipe TEXT NOT NULL,
        running TEXT NOT NULL,
        running_sha256 TEXT NOT NULL,
        candidate TEXT NOT NULL,
        candidate_sha256 TEXT NOT NULL,
        limits TEXT NOT NULL,
        counts TEXT NOT NULL
    );
    CREATE TABLE shadow (
        frame INTEGER NOT NULL,
        source TEXT NOT NULL,
        run TEXT NOT NULL,
        comparison INTEGER NOT NULL,
        captured_s REAL NOT NULL,
        verdict TEXT NOT NULL,
        candidate TEXT NOT NULL,
        score REAL,
        candidate_score REAL,
        event INTEGER NOT NULL,
        name TEXT NOT NULL,
        picture TEXT NOT NULL,
        PRIMARY KEY (frame, source, run)
    ) WITHOUT ROWID;
    CREATE INDEX shadow_pictures ON shadow (comparison) WHERE picture != '';
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
    "parts",
)
CHECK_COLUMNS = (
    "time",
    "time_s",
    "who",
    "origin",
    "recipe",
    "engine_sha256",
    "limits",
    "passed",
    "after",
    "parts",
)
AUDIT_COLUMNS = ("time", "who", "origin", "what", "old", "new", "run")
MARK_COLUMNS = ("time", "judgement", "kind", "reason", "who", "origin", "picture", "about")
COMPARISON_COLUMNS = (
    "began",
    "recipe",
    "running",
    "running_sha256",
    "candidate",
    "candidate_sha256",
    "limits",
    "counts",
)
SHADOW_COLUMNS = (
    "frame",
    "source",
    "run",
    "comparison",
    "captured_s",
    "verdict",
    "candidate",
    "score",
    "candidate_score",
    "event",
    "name",
    "picture",
)


def _insert(table: str, columns: Sequence[str]) -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"


INSERT_INSPECTION = _insert("inspections", INSPECTION_COLUMNS)
INSERT_CHECK = _insert("checks", CHECK_COLUMNS)
INSERT_AUDIT = _insert("audit", AUDIT_COLUMNS)
INSERT_MARK = _insert("marks", MARK_COLUMNS)
INSERT_COMPARISON = _insert("comparisons", COMPARISON_COLUMNS)
INSERT_SHADOW = _insert("shadow", SHADOW_COLUMNS).replace("INSERT", "INSERT OR REPLACE")
