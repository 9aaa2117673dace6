# t3-backup. `make demo` shows the main job, `make test` is for every change, `make check` is the
# gate, `make soak` is all there is, `make install` installs the Debian package; each installs what
# it needs (as root).

PYTHON = /usr/bin/python3
EXTENSION = t3_backup/_copier.abi3.so

.PHONY: build demo test check soak bench deb install clean

build: $(EXTENSION)

$(EXTENSION): $(wildcard csrc/*.c csrc/*.h) csrc/build.py setup.py
	@tools/need build
	$(PYTHON) setup.py --quiet build_ext --inplace
	@touch $@

demo:
	@tools/need demo
	@$(MAKE) --no-print-directory build
	@$(PYTHON) -m demo.run

test:
	@tools/need test
	@$(MAKE) --no-print-directory build
	@tools/lint
	@$(PYTHON) -m pytest -q -n auto tests/unit tests/property

check:
	@tools/need check
	@$(MAKE) --no-print-directory build
	@tools/check

soak:
	@tools/need check
	@$(MAKE) --no-print-directory build
	@tools/soak.py

bench:
	@tools/need bench
	@$(MAKE) --no-print-directory build
	@$(PYTHON) -m bench.bench $(BENCH)

deb:
	@tools/need deb
	@tools/deb

install: deb
	@tools/need install
	apt-get install -y --reinstall --allow-downgrades ./t3-backup_*.deb

clean:
	rm -rf build dist t3-backup_*.deb t3-autoupdate_*.deb $(EXTENSION) t3_backup/_copier.c *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
