"""`python -m trainers`, as torchrun starts it."""

from trainers.cli import main

if __name__ == "__main__":
    main()
