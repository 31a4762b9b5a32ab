.PHONY: check test test-gpu bench

check:
	ruff check .
	ruff format --check .
	mypy

test:
	pytest -q -n 2 --dist loadfile

test-gpu:
	pytest -q -m gpu

bench:
	python studies/bench_training.py
	python studies/bench_prepare.py
