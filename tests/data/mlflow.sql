CREATE TABLE "experiments" (
	experiment_id INTEGER NOT NULL, 
	name VARCHAR(256) NOT NULL, 
	artifact_location VARCHAR(256), 
	lifecycle_stage VARCHAR(32), 
	creation_time BIGINT, 
	last_update_time BIGINT, 
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, 
	CONSTRAINT experiment_pk PRIMARY KEY (experiment_id), 
	CONSTRAINT experiments_lifecycle_stage CHECK (lifecycle_stage IN ('active', 'deleted')), 
	CONSTRAINT uq_experiments_workspace_name UNIQUE (workspace, name)
);
CREATE TABLE "runs" (
	run_uuid VARCHAR(32) NOT NULL, 
	name VARCHAR(250), 
	source_type VARCHAR(20), 
	source_name VARCHAR(500), 
	entry_point_name VARCHAR(50), 
	user_id VARCHAR(256), 
	status VARCHAR(9), 
	start_time BIGINT, 
	end_time BIGINT, 
	source_version VARCHAR(50), 
	lifecycle_stage VARCHAR(20), 
	artifact_uri VARCHAR(200), 
	experiment_id INTEGER, deleted_time BIGINT, 
	CONSTRAINT run_pk PRIMARY KEY (run_uuid), 
	CONSTRAINT source_type CHECK (source_type IN ('NOTEBOOK', 'JOB', 'LOCAL', 'UNKNOWN', 'PROJECT')), 
	CONSTRAINT runs_lifecycle_stage CHECK (lifecycle_stage IN ('active', 'deleted')), 
	FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id), 
	CHECK (status IN ('SCHEDULED', 'FAILED', 'FINISHED', 'RUNNING', 'KILLED'))
);
CREATE TABLE "metrics" (
	"key" VARCHAR(250) NOT NULL, 
	value FLOAT NOT NULL, 
	timestamp BIGINT NOT NULL, 
	run_uuid VARCHAR(32) NOT NULL, 
	step BIGINT DEFAULT '0' NOT NULL, 
	is_nan BOOLEAN DEFAULT '0' NOT NULL, 
	CONSTRAINT metric_pk PRIMARY KEY ("key", timestamp, step, run_uuid, value, is_nan), 
	FOREIGN KEY(run_uuid) REFERENCES runs (run_uuid), 
	CHECK (is_nan IN (0, 1))
);
CREATE TABLE "params" (
	"key" VARCHAR(250) NOT NULL, 
	value VARCHAR(8000) NOT NULL, 
	run_uuid VARCHAR(32) NOT NULL, 
	CONSTRAINT param_pk PRIMARY KEY ("key", run_uuid), 
	FOREIGN KEY(run_uuid) REFERENCES runs (run_uuid)
);
CREATE TABLE "tags" (
	"key" VARCHAR(250) NOT NULL, 
	value VARCHAR(8000), 
	run_uuid VARCHAR(32) NOT NULL, 
	CONSTRAINT tag_pk PRIMARY KEY ("key", run_uuid), 
	FOREIGN KEY(run_uuid) REFERENCES runs (run_uuid)
);
INSERT INTO experiments VALUES (0, 'Default', '/home/user/mlruns/0', 'active', 1795290528221, 1795290528221, 'default');
INSERT INTO experiments VALUES (1, 'digits: new scans', '/home/user/mlruns/1', 'active', 1795290528252, 1795290528252, 'default');
INSERT INTO runs VALUES ('fc1ac3ef6e504b0395a9a461a0b5da68', 'blur-0', 'UNKNOWN', '', '', 'user', 'FINISHED', 1795290528303, 1795290531218, '', 'active', '/home/user/mlruns/1/fc1ac3ef6e504b0395a9a461a0b5da68/artifacts', 1, NULL);
INSERT INTO runs VALUES ('d436311bb0744a6cadd088b06fbd17fd', 'blur-1', 'UNKNOWN', '', '', 'user', 'FINISHED', 1795290531253, 1795290534035, '', 'active', '/home/user/mlruns/1/d436311bb0744a6cadd088b06fbd17fd/artifacts', 1, NULL);
INSERT INTO runs VALUES ('4eaffa940c4e48c588860fa34f7dab4f', 'final only', 'UNKNOWN', '', '', 'user', 'FINISHED', 1795290534069, 1795290534136, '', 'active', '/home/user/mlruns/1/4eaffa940c4e48c588860fa34f7dab4f/artifacts', 1, NULL);
INSERT INTO runs VALUES ('b6db8d251e0e43a1aa508ade6afa951c', 'by epoch', 'UNKNOWN', '', '', 'user', 'FINISHED', 1795290534146, 1795290534251, '', 'active', '/home/user/mlruns/1/b6db8d251e0e43a1aa508ade6afa951c/artifacts', 1, NULL);
INSERT INTO runs VALUES ('887690865d5f4fe59a0132037a1eea1e', 'percent', 'UNKNOWN', '', '', 'user', 'FINISHED', 1795290534276, 1795290534379, '', 'active', '/home/user/mlruns/1/887690865d5f4fe59a0132037a1eea1e/artifacts', 1, NULL);
INSERT INTO metrics VALUES ('val_accuracy', 0.4, 1795290528418, 'fc1ac3ef6e504b0395a9a461a0b5da68', 0, 0);
INSERT INTO metrics VALUES ('val_loss', 1.5, 1795290528455, 'fc1ac3ef6e504b0395a9a461a0b5da68', 0, 0);
INSERT INTO metrics VALUES ('train/loss', 1.2, 1795290528495, 'fc1ac3ef6e504b0395a9a461a0b5da68', 0, 0);
INSERT INTO metrics VALUES ('val_accuracy', 0.55, 1795290529135, 'fc1ac3ef6e504b0395a9a461a0b5da68', 40, 0);
INSERT INTO metrics VALUES ('val_loss', 1.1, 1795290529171, 'fc1ac3ef6e504b0395a9a461a0b5da68', 40, 0);
INSERT INTO metrics VALUES ('train/loss', 8.99999999999999911182e-01, 1795290529211, 'fc1ac3ef6e504b0395a9a461a0b5da68', 40, 0);
INSERT INTO metrics VALUES ('val_accuracy', 0.7, 1795290529844, 'fc1ac3ef6e504b0395a9a461a0b5da68', 80, 0);
INSERT INTO metrics VALUES ('val_loss', 0.7, 1795290529867, 'fc1ac3ef6e504b0395a9a461a0b5da68', 80, 0);
INSERT INTO metrics VALUES ('train/loss', 0.6, 1795290529895, 'fc1ac3ef6e504b0395a9a461a0b5da68', 80, 0);
INSERT INTO metrics VALUES ('val_accuracy', 0.85, 1795290530519, 'fc1ac3ef6e504b0395a9a461a0b5da68', 120, 0);
INSERT INTO metrics VALUES ('val_loss', 2.99999999999999822364e-01, 1795290530555, 'fc1ac3ef6e504b0395a9a461a0b5da68', 120, 0);
INSERT INTO metrics VALUES ('train/loss', 3.00000000000000044408e-01, 1795290530583, 'fc1ac3ef6e504b0395a9a461a0b5da68', 120, 0);
INSERT INTO metrics VALUES ('val_accuracy', 4.10000000000000031086e-01, 1795290531301, 'd436311bb0744a6cadd088b06fbd17fd', 0, 0);
INSERT INTO metrics VALUES ('val_loss', 1.5, 1795290531331, 'd436311bb0744a6cadd088b06fbd17fd', 0, 0);
INSERT INTO metrics VALUES ('train/loss', 1.2, 1795290531355, 'd436311bb0744a6cadd088b06fbd17fd', 0, 0);
INSERT INTO metrics VALUES ('val_accuracy', 0.56, 1795290531976, 'd436311bb0744a6cadd088b06fbd17fd', 40, 0);
INSERT INTO metrics VALUES ('val_loss', 1.1, 1795290531996, 'd436311bb0744a6cadd088b06fbd17fd', 40, 0);
INSERT INTO metrics VALUES ('train/loss', 8.99999999999999911182e-01, 1795290532028, 'd436311bb0744a6cadd088b06fbd17fd', 40, 0);
INSERT INTO metrics VALUES ('val_accuracy', 0.71, 1795290532640, 'd436311bb0744a6cadd088b06fbd17fd', 80, 0);
INSERT INTO metrics VALUES ('val_loss', 0.7, 1795290532679, 'd436311bb0744a6cadd088b06fbd17fd', 80, 0);
INSERT INTO metrics VALUES ('train/loss', 0.6, 1795290532697, 'd436311bb0744a6cadd088b06fbd17fd', 80, 0);
INSERT INTO metrics VALUES ('val_accuracy', 0.86, 1795290533320, 'd436311bb0744a6cadd088b06fbd17fd', 120, 0);
INSERT INTO metrics VALUES ('val_loss', 0.0, 1795290533359, 'd436311bb0744a6cadd088b06fbd17fd', 120, 1);
INSERT INTO metrics VALUES ('train/loss', 3.00000000000000044408e-01, 1795290533395, 'd436311bb0744a6cadd088b06fbd17fd', 120, 0);
INSERT INTO metrics VALUES ('val_accuracy', 0.9, 1795290534113, '4eaffa940c4e48c588860fa34f7dab4f', 0, 0);
INSERT INTO metrics VALUES ('val_accuracy', 0.6, 1795290534187, 'b6db8d251e0e43a1aa508ade6afa951c', 0, 0);
INSERT INTO metrics VALUES ('val_accuracy', 0.7, 1795290534209, 'b6db8d251e0e43a1aa508ade6afa951c', 1, 0);
INSERT INTO metrics VALUES ('val_accuracy', 0.8, 1795290534231, 'b6db8d251e0e43a1aa508ade6afa951c', 2, 0);
INSERT INTO metrics VALUES ('val_accuracy', 60.0, 1795290534307, '887690865d5f4fe59a0132037a1eea1e', 0, 0);
INSERT INTO metrics VALUES ('val_accuracy', 70.0, 1795290534327, '887690865d5f4fe59a0132037a1eea1e', 40, 0);
INSERT INTO metrics VALUES ('val_accuracy', 80.0, 1795290534355, '887690865d5f4fe59a0132037a1eea1e', 80, 0);
INSERT INTO params VALUES ('lr', '0.01', 'fc1ac3ef6e504b0395a9a461a0b5da68');
INSERT INTO params VALUES ('batch_size', '32', 'fc1ac3ef6e504b0395a9a461a0b5da68');
INSERT INTO params VALUES ('optimizer', 'Adam', 'fc1ac3ef6e504b0395a9a461a0b5da68');
INSERT INTO params VALUES ('seed', '0', 'fc1ac3ef6e504b0395a9a461a0b5da68');
INSERT INTO params VALUES ('augment', 'flip, crop', 'fc1ac3ef6e504b0395a9a461a0b5da68');
INSERT INTO params VALUES ('lr', '0.01', 'd436311bb0744a6cadd088b06fbd17fd');
INSERT INTO params VALUES ('batch_size', '32', 'd436311bb0744a6cadd088b06fbd17fd');
INSERT INTO params VALUES ('optimizer', 'Adam', 'd436311bb0744a6cadd088b06fbd17fd');
INSERT INTO params VALUES ('seed', '1', 'd436311bb0744a6cadd088b06fbd17fd');
INSERT INTO params VALUES ('augment', 'flip, crop', 'd436311bb0744a6cadd088b06fbd17fd');
INSERT INTO tags VALUES ('mlflow.runName', 'final only', '4eaffa940c4e48c588860fa34f7dab4f');
INSERT INTO tags VALUES ('mlflow.runName', 'percent', '887690865d5f4fe59a0132037a1eea1e');
INSERT INTO tags VALUES ('mlflow.runName', 'by epoch', 'b6db8d251e0e43a1aa508ade6afa951c');
INSERT INTO tags VALUES ('mlflow.runName', 'blur-1', 'd436311bb0744a6cadd088b06fbd17fd');
INSERT INTO tags VALUES ('mlflow.runName', 'blur-0', 'fc1ac3ef6e504b0395a9a461a0b5da68');
