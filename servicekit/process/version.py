"""The version of the whole system; the packages share one."""

VERSION = "0.1.0"
