# runtime/python/attnrt/__main__.py: python -m attnrt is the command attnrt
from ._command import main

main()
