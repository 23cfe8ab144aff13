"""Log lines as key=value pairs on standard error, one per decision."""

import json
import logging
import sys
import time


class LogfmtFormatter(logging.Formatter):
    """`ts=2026-01-31T10:20:30.123Z level=info logger=tortie.agent msg="..."`; line breaks are escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, a traceback included."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        message = record.getMessage()
        if record.exc_info:
            message = f"{message}\n{self.formatException(record.exc_info)}"
        return (
            f"ts={stamp}.{int(record.msecs):03d}Z level={record.levelname.lower()} logger={record.name} "
            f"msg={json.dumps(message, ensure_ascii=False)}"
        )


def set_up_logging(level: str) -> None:
    """Send records of `level` and above to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogfmtFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
