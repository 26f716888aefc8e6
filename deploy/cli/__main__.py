"""``python -m deploy.cli`` is ``pocketship``."""

from deploy.cli import main

if __name__ == "__main__":
    main()
