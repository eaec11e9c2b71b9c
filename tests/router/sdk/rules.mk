# The part of OpenWrt's SDK that gt's Makefile uses: "make list" prints what its packages are, and
# "make install-NAME" installs the files of one into $(ROOT).
INCLUDE_DIR:=$(TOPDIR)/include
PKG_INSTALL_DIR:=$(ROOT)/built
INSTALL_DIR:=install -d -m 755
INSTALL_BIN:=install -m 755
INSTALL_DATA:=install -m 644
INSTALL_CONF:=install -m 600
