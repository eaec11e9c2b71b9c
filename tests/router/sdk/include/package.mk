define BuildPackage
$(eval CONFLICTS:=)
$(eval $(Package/$(1)))
list::
	@echo "$(1): variant $(VARIANT); conflicts $(CONFLICTS); features $(FEATURES_$(VARIANT)); conffiles $(strip $(Package/$(1)/conffiles)); user $(USERID)"
prerm-$(1):
	$$(info $$(Package/$(1)/prerm)) @:
install-$(1):
	$(call Package/$(1)/install,$(ROOT))
endef
