"""python -m fnnet"""

from fnnet.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
