"""Answers as `python -m moec.pipeline.server` does, and misbehaves as it is told by the name of the specialisation."""

import json
import os
import signal
import sys
import time


def main() -> None:
    if "--silent" in sys.argv:
        time.sleep(1000)
    print(json.dumps({"ready": True, "moec": "0"}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        answer: dict[str, object] = {"id": job["id"], "ok": True, "seconds": 0.1}
        match job["specialisation"]["name"]:
            case "hang":
                open(job["output"], "w").close()
                time.sleep(1000)
            case "crash":
                print("Segmentation something", file=sys.stderr, flush=True)
                os.kill(os.getpid(), signal.SIGSEGV)
            case "leave":
                sys.exit(3)
            case "refuse":
                answer = {"id": job["id"], "ok": False, "error": "it cannot be done"}
            case "nonsense":
                print("nonsense", flush=True)
                continue
            case "stale":
                answer["id"] = -1
            case _:
                with open(job["output"], "w") as file:
                    file.write(f"{os.getpid()} {os.sched_getscheduler(0)}")
        print(json.dumps(answer), flush=True)


main()
