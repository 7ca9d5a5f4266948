"What a process that has imported nothing loads"
import sys


def import_alone(statement):
    "Import, and return the modules that are loaded then"
    exec(statement, {})
    return sorted(sys.modules),None
