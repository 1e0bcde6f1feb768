"""The same bars by other frameworks, each as its documentation shows it. Run by `bench.contenders`, one at a time.

The Python ones run in an environment of their own (`make bench` makes it from requirements.txt): here, nothing of
Headrace is imported.
"""
