RUST_ARCH_DEPENDS:=@(mips||mipsel)
RustBinPackage:=
