"""An installation as a transaction: decided, written down, prepared, carried out, and finished or undone in any case.

`install` is where it begins, `recovery` where it goes on after an interruption, `rollback` where it is taken back.
"""
