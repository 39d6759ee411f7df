"""`python -m celeriac` is the `celeriac` command.

Where no script is on the PATH (containers, supervised children) this is the way in. Next: cli/.
"""

from celeriac.cli import main

if __name__ == "__main__":
    main()
