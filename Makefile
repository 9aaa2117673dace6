# t3-backup. `make demo` shows the main job, `make check` runs all tests, `make install` installs the Debian package; each
# installs what it needs (as root).

PYTHON = /usr/bin/python3
EXTENSION = t3_backup/_copier.abi3.so

.PHONY: build demo check bench deb install clean

build: $(EXTENSION)

$(EXTENSION): $(wildcard csrc/*.c csrc/*.h) csrc/build.py setup.py
	@tools/need build
	$(PYTHON) setup.py --quiet build_ext --inplace
	@touch $@

demo:
	@tools/need demo
	@$(MAKE) --no-print-directory build
	@$(PYTHON) -m demo.run

check:
	@tools/need check
	@$(MAKE) --no-print-directory build
	@tools/check

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
	rm -rf build t3-backup_*.deb t3-autoupdate_*.deb t3_backup/_copier.abi3.so t3_backup/_copier.c *.egg-info dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
