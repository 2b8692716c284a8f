PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE bodies (sha BLOB PRIMARY KEY, text BLOB NOT NULL);
INSERT INTO bodies VALUES(X'fa25f27df04b50cd23c8bd673e748ba9a5b2d84d7d58011771c804597441fc58','Echo: Dora lives in Warsaw.');
INSERT INTO bodies VALUES(X'b4287c24e53eb5256aab329507378709224a87910a87a454296d3e07e54ec0d7','Echo: Amir lives in Berlin.');
INSERT INTO bodies VALUES(X'1254e0e63ff1ca6b61613853270eec2c7b34303ee5755fed194d8a6ebc2fd0c9','Echo: Umar likes the colour navy.');
CREATE TABLE calls (
            n INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            item TEXT NOT NULL,
            sample INTEGER NOT NULL,
            round INTEGER NOT NULL,
            agent TEXT NOT NULL,
            attempt INTEGER NOT NULL,
            phase TEXT NOT NULL,
            model TEXT NOT NULL,
            request_id TEXT NOT NULL,
            started_at REAL,
            edge TEXT,
            input_tokens INTEGER,
            output_tokens INTEGER,
            cached_tokens INTEGER,
            reasoning_tokens INTEGER,
            cache_hit INTEGER NOT NULL,
            latency_s REAL,
            finish_reason TEXT,
            cost REAL,
            parts TEXT,
            parts_estimated INTEGER NOT NULL,
            error_kind TEXT,
            error TEXT,
            reply BLOB);
INSERT INTO calls VALUES(1,'1f37a6f34fa84fffa2244f59b4d0e921','records-9edca47d7d78',0,1,'s1',1,'evaluate','mock/echo','56475cf0b276440593107a8d4fa829259fc870da1ae8d3197c16602af330359e',1795865677.0445554256,NULL,50,7,NULL,NULL,0,0.0,'stop',NULL,'{"system":14,"task":28,"template":8}',0,NULL,NULL,X'fa25f27df04b50cd23c8bd673e748ba9a5b2d84d7d58011771c804597441fc58');
INSERT INTO calls VALUES(2,'e43286a1a91f426f8283a99d4d569eea','records-fb598dae0445',0,1,'s1',1,'evaluate','mock/echo','447462638f99c468b0c446dac4a83985ac23f8295d14915a4e7d0fd5c228545c',1795865677.0565078258,NULL,49,7,NULL,NULL,0,0.0,'stop',NULL,'{"system":14,"task":27,"template":8}',0,NULL,NULL,X'b4287c24e53eb5256aab329507378709224a87910a87a454296d3e07e54ec0d7');
INSERT INTO calls VALUES(3,'3f86f0fcfa8540d7bf7ee7d2b917f3e2','records-0890edda3793',0,1,'s1',1,'evaluate','mock/echo','3f696ce3e24e0e9a34d9c596eb9406a8e56eac37cd9414e09818efec94a2cea9',1795865677.0566873549,NULL,48,8,NULL,NULL,0,0.0,'stop',NULL,'{"system":14,"task":26,"template":8}',0,NULL,NULL,X'1254e0e63ff1ca6b61613853270eec2c7b34303ee5755fed194d8a6ebc2fd0c9');
INSERT INTO calls VALUES(4,'a534b5b291c94019ace73d8f92d46b8b','records-9edca47d7d78',0,1,'s2',1,'evaluate','mock/echo','383b2705741538748e22dd5045558e6bb1c1a1c7359ad052d0d704e9ebb6727e',1795865677.0723834037,NULL,60,7,NULL,NULL,0,0.0,'stop',NULL,'{"system":14,"task":28,"s1->s2":10,"template":8}',0,NULL,NULL,X'fa25f27df04b50cd23c8bd673e748ba9a5b2d84d7d58011771c804597441fc58');
INSERT INTO calls VALUES(5,'826067e3d6d44a14b0f4a2b38ab28fb5','records-fb598dae0445',0,1,'s2',1,'evaluate','mock/echo','4753a4ff0a1e0378ba8de0a02747d17ee2e4c4638b2d0e0c3dabb51e2e3ae851',1795865677.0860631466,NULL,59,7,NULL,NULL,0,0.0,'stop',NULL,'{"system":14,"task":27,"s1->s2":10,"template":8}',0,NULL,NULL,X'b4287c24e53eb5256aab329507378709224a87910a87a454296d3e07e54ec0d7');
INSERT INTO calls VALUES(6,'e122f391e3544c03a60c48a0db83e51b','records-0890edda3793',0,1,'s2',1,'evaluate','mock/echo','4b7121ffd411fd137ebf78411f94333904075ecf11e36b0cbc4a323e506546da',1795865677.0867209434,NULL,59,8,NULL,NULL,0,0.0,'stop',NULL,'{"system":14,"task":26,"s1->s2":11,"template":8}',0,NULL,NULL,X'1254e0e63ff1ca6b61613853270eec2c7b34303ee5755fed194d8a6ebc2fd0c9');
INSERT INTO calls VALUES(7,'75a5a9a3e40f4aa3a73bce956de33310','records-9edca47d7d78',0,1,'s3',1,'evaluate','mock/echo','1e451e24db275f6b30b58927bba2583176c06d3381bf56d42e639099a3a8d05c',1795865677.0905981063,NULL,70,7,NULL,NULL,0,0.0,'stop',NULL,'{"system":14,"task":28,"s1->s3":10,"s2->s3":10,"template":8}',0,NULL,NULL,X'fa25f27df04b50cd23c8bd673e748ba9a5b2d84d7d58011771c804597441fc58');
INSERT INTO calls VALUES(8,'26d35b359bd14e5ca12e9adfe2b2c5ca','records-fb598dae0445',0,1,'s3',1,'evaluate','mock/echo','ace4d2c8782b69a0b61f23822f8c83674e979c9ae00feaf9c3171c7027fb186a',1795865677.1016888618,NULL,69,7,NULL,NULL,0,0.0,'stop',NULL,'{"system":14,"task":27,"s1->s3":10,"s2->s3":10,"template":8}',0,NULL,NULL,X'b4287c24e53eb5256aab329507378709224a87910a87a454296d3e07e54ec0d7');
INSERT INTO calls VALUES(9,'1d7e3f6f84ef49b78c745954c01abb3f','records-0890edda3793',0,1,'s3',1,'evaluate','mock/echo','9f5a25bc1b5f0e0e022d24cc56b82092ae9d9b8fdbbc003e7dc501f2ed1caebe',1795865677.1025905609,NULL,70,8,NULL,NULL,0,0.0,'stop',NULL,'{"system":14,"task":26,"s1->s3":11,"s2->s3":11,"template":8}',0,NULL,NULL,X'1254e0e63ff1ca6b61613853270eec2c7b34303ee5755fed194d8a6ebc2fd0c9');
INSERT INTO calls VALUES(10,'d010db45f3f349c38fe6b25c3a2dede3','records-9edca47d7d78',0,1,'s4',1,'evaluate','mock/echo','361454f2e7e387e0aaaa13b8b174477b45fe7ea55836e3e29acbb8afcad366f8',1795865677.1065528392,NULL,80,7,NULL,NULL,0,0.0,'stop',NULL,'{"system":14,"task":28,"s1->s4":10,"s2->s4":10,"s3->s4":10,"template":8}',0,NULL,NULL,X'fa25f27df04b50cd23c8bd673e748ba9a5b2d84d7d58011771c804597441fc58');
INSERT INTO calls VALUES(11,'120b6a6432ef4a13a12b3a3dd2acbf7e','records-fb598dae0445',0,1,'s4',1,'evaluate','mock/echo','fd58be7f14c2d2a9da3021ebf490d81a00817ca07869dd00a5e1bdb28dabf25a',1795865677.1117122173,NULL,79,7,NULL,NULL,0,0.0,'stop',NULL,'{"system":14,"task":27,"s1->s4":10,"s2->s4":10,"s3->s4":10,"template":8}',0,NULL,NULL,X'b4287c24e53eb5256aab329507378709224a87910a87a454296d3e07e54ec0d7');
INSERT INTO calls VALUES(12,'be10ef7d63ca426b99795ee3c957ca1f','records-0890edda3793',0,1,'s4',1,'evaluate','mock/echo','4e924ccf0db768be7d386337d17df2490e8f7d77067eae0a04131b1b39a8f5f1',1795865677.1120803356,NULL,81,8,NULL,NULL,0,0.0,'stop',NULL,'{"system":14,"task":26,"s1->s4":11,"s2->s4":11,"s3->s4":11,"template":8}',0,NULL,NULL,X'1254e0e63ff1ca6b61613853270eec2c7b34303ee5755fed194d8a6ebc2fd0c9');
INSERT INTO calls VALUES(13,'d11d61f1640c451f8c4be227c3f2eb9f','records-9edca47d7d78',0,1,'judge',1,'evaluate','mock/echo','6aebbdfbe37a044445283651b91357f3095339707328227d260820a50b066c75',1795865677.1195640563,NULL,69,7,NULL,NULL,0,0.0,'stop',NULL,'{"system":14,"task":7,"s1->judge":10,"s2->judge":10,"s3->judge":10,"s4->judge":10,"template":8}',0,NULL,NULL,X'fa25f27df04b50cd23c8bd673e748ba9a5b2d84d7d58011771c804597441fc58');
INSERT INTO calls VALUES(14,'4d877ab4a4e4447296a44953aee0b8d4','records-fb598dae0445',0,1,'judge',1,'evaluate','mock/echo','3f1606414071e5c77b9297ce9d046010ccec0467d85deb49704360f912bf3201',1795865677.1265780926,NULL,68,7,NULL,NULL,0,0.0,'stop',NULL,'{"system":14,"task":6,"s1->judge":10,"s2->judge":10,"s3->judge":10,"s4->judge":10,"template":8}',0,NULL,NULL,X'b4287c24e53eb5256aab329507378709224a87910a87a454296d3e07e54ec0d7');
INSERT INTO calls VALUES(15,'cf01811c5f5b4b97a1d545da352f1405','records-0890edda3793',0,1,'judge',1,'evaluate','mock/echo','48d9f9980e1a8dd966dbc1fa896442cb0745bc7a0bc27acbb34902010acf8e29',1795865677.1268081664,NULL,72,8,NULL,NULL,0,0.0,'stop',NULL,'{"system":14,"task":6,"s1->judge":11,"s2->judge":11,"s3->judge":11,"s4->judge":11,"template":8}',0,NULL,NULL,X'1254e0e63ff1ca6b61613853270eec2c7b34303ee5755fed194d8a6ebc2fd0c9');
CREATE TABLE deliveries (
            call_id TEXT NOT NULL,
            position INTEGER NOT NULL,
            item TEXT NOT NULL,
            sample INTEGER NOT NULL,
            round INTEGER NOT NULL,
            sender TEXT NOT NULL,
            reader TEXT NOT NULL,
            kind TEXT NOT NULL,
            message_id TEXT NOT NULL,
            sender_call_id TEXT,
            tokens INTEGER,
            original BLOB NOT NULL,
            body BLOB NOT NULL,
            channel TEXT NOT NULL,
            note TEXT NOT NULL,
            again INTEGER NOT NULL,
            PRIMARY KEY (item, sample, call_id, position)) WITHOUT ROWID;
INSERT INTO deliveries VALUES('1d7e3f6f84ef49b78c745954c01abb3f',0,'records-0890edda3793',0,1,'s1','s3','spatial','4105a27cc7de38fe47e6bddcf4c740caa480b187b21822b585253c22f052f299','3f86f0fcfa8540d7bf7ee7d2b917f3e2',11,X'1254e0e63ff1ca6b61613853270eec2c7b34303ee5755fed194d8a6ebc2fd0c9',X'1254e0e63ff1ca6b61613853270eec2c7b34303ee5755fed194d8a6ebc2fd0c9','verbatim','',0);
INSERT INTO deliveries VALUES('1d7e3f6f84ef49b78c745954c01abb3f',1,'records-0890edda3793',0,1,'s2','s3','spatial','260093f467c5b37a6722821602829e22f45d67f7cf4ae6519a0bc2c8144dbe38','e122f391e3544c03a60c48a0db83e51b',11,X'1254e0e63ff1ca6b61613853270eec2c7b34303ee5755fed194d8a6ebc2fd0c9',X'1254e0e63ff1ca6b61613853270eec2c7b34303ee5755fed194d8a6ebc2fd0c9','verbatim','',0);
INSERT INTO deliveries VALUES('be10ef7d63ca426b99795ee3c957ca1f',0,'records-0890edda3793',0,1,'s1','s4','spatial','4105a27cc7de38fe47e6bddcf4c740caa480b187b21822b585253c22f052f299','3f86f0fcfa8540d7bf7ee7d2b917f3e2',11,X'1254e0e63ff1ca6b61613853270eec2c7b34303ee5755fed194d8a6ebc2fd0c9',X'1254e0e63ff1ca6b61613853270eec2c7b34303ee5755fed194d8a6ebc2fd0c9','verbatim','',0);
INSERT INTO deliveries VALUES('be10ef7d63ca426b99795ee3c957ca1f',1,'records-0890edda3793',0,1,'s2','s4','spatial','260093f467c5b37a6722821602829e22f45d67f7cf4ae6519a0bc2c8144dbe38','e122f391e3544c03a60c48a0db83e51b',11,X'1254e0e63ff1ca6b61613853270eec2c7b34303ee5755fed194d8a6ebc2fd0c9',X'1254e0e63ff1ca6b61613853270eec2c7b34303ee5755fed194d8a6ebc2fd0c9','verbatim','',0);
INSERT INTO deliveries VALUES('be10ef7d63ca426b99795ee3c957ca1f',2,'records-0890edda3793',0,1,'s3','s4','spatial','a4d1ccade07cf6ba662931ca8edfb6c0ee538d35f589f05135d66846e1ceea07','1d7e3f6f84ef49b78c745954c01abb3f',11,X'1254e0e63ff1ca6b61613853270eec2c7b34303ee5755fed194d8a6ebc2fd0c9',X'1254e0e63ff1ca6b61613853270eec2c7b34303ee5755fed194d8a6ebc2fd0c9','verbatim','',0);
INSERT INTO deliveries VALUES('cf01811c5f5b4b97a1d545da352f1405',0,'records-0890edda3793',0,1,'s1','judge','spatial','4105a27cc7de38fe47e6bddcf4c740caa480b187b21822b585253c22f052f299','3f86f0fcfa8540d7bf7ee7d2b917f3e2',11,X'1254e0e63ff1ca6b61613853270eec2c7b34303ee5755fed194d8a6ebc2fd0c9',X'1254e0e63ff1ca6b61613853270eec2c7b34303ee5755fed194d8a6ebc2fd0c9','verbatim','',0);
INSERT INTO deliveries VALUES('cf01811c5f5b4b97a1d545da352f1405',1,'records-0890edda3793',0,1,'s2','judge','spatial','260093f467c5b37a6722821602829e22f45d67f7cf4ae6519a0bc2c8144dbe38','e122f391e3544c03a60c48a0db83e51b',11,X'1254e0e63ff1ca6b61613853270eec2c7b34303ee5755fed194d8a6ebc2fd0c9',X'1254e0e63ff1ca6b61613853270eec2c7b34303ee5755fed194d8a6ebc2fd0c9','verbatim','',0);
INSERT INTO deliveries VALUES('cf01811c5f5b4b97a1d545da352f1405',2,'records-0890edda3793',0,1,'s3','judge','spatial','a4d1ccade07cf6ba662931ca8edfb6c0ee538d35f589f05135d66846e1ceea07','1d7e3f6f84ef49b78c745954c01abb3f',11,X'1254e0e63ff1ca6b61613853270eec2c7b34303ee5755fed194d8a6ebc2fd0c9',X'1254e0e63ff1ca6b61613853270eec2c7b34303ee5755fed194d8a6ebc2fd0c9','verbatim','',0);
INSERT INTO deliveries VALUES('cf01811c5f5b4b97a1d545da352f1405',3,'records-0890edda3793',0,1,'s4','judge','spatial','356748e1e618706fd09c836b34de3648dbc9b80857762857ff0dc59b868fc371','be10ef7d63ca426b99795ee3c957ca1f',11,X'1254e0e63ff1ca6b61613853270eec2c7b34303ee5755fed194d8a6ebc2fd0c9',X'1254e0e63ff1ca6b61613853270eec2c7b34303ee5755fed194d8a6ebc2fd0c9','verbatim','',0);
INSERT INTO deliveries VALUES('e122f391e3544c03a60c48a0db83e51b',0,'records-0890edda3793',0,1,'s1','s2','spatial','4105a27cc7de38fe47e6bddcf4c740caa480b187b21822b585253c22f052f299','3f86f0fcfa8540d7bf7ee7d2b917f3e2',11,X'1254e0e63ff1ca6b61613853270eec2c7b34303ee5755fed194d8a6ebc2fd0c9',X'1254e0e63ff1ca6b61613853270eec2c7b34303ee5755fed194d8a6ebc2fd0c9','verbatim','',0);
INSERT INTO deliveries VALUES('75a5a9a3e40f4aa3a73bce956de33310',0,'records-9edca47d7d78',0,1,'s1','s3','spatial','6ef3d02fdadb3ba4ef0e46a9809ed57e844e247d80ff4d1a2bf6bfba7981d024','1f37a6f34fa84fffa2244f59b4d0e921',10,X'fa25f27df04b50cd23c8bd673e748ba9a5b2d84d7d58011771c804597441fc58',X'fa25f27df04b50cd23c8bd673e748ba9a5b2d84d7d58011771c804597441fc58','verbatim','',0);
INSERT INTO deliveries VALUES('75a5a9a3e40f4aa3a73bce956de33310',1,'records-9edca47d7d78',0,1,'s2','s3','spatial','081ae45eecce9e80c46a3d47beb9d61197b967a4e99d20e6fe158e558ae7a92c','a534b5b291c94019ace73d8f92d46b8b',10,X'fa25f27df04b50cd23c8bd673e748ba9a5b2d84d7d58011771c804597441fc58',X'fa25f27df04b50cd23c8bd673e748ba9a5b2d84d7d58011771c804597441fc58','verbatim','',0);
INSERT INTO deliveries VALUES('a534b5b291c94019ace73d8f92d46b8b',0,'records-9edca47d7d78',0,1,'s1','s2','spatial','6ef3d02fdadb3ba4ef0e46a9809ed57e844e247d80ff4d1a2bf6bfba7981d024','1f37a6f34fa84fffa2244f59b4d0e921',10,X'fa25f27df04b50cd23c8bd673e748ba9a5b2d84d7d58011771c804597441fc58',X'fa25f27df04b50cd23c8bd673e748ba9a5b2d84d7d58011771c804597441fc58','verbatim','',0);
INSERT INTO deliveries VALUES('d010db45f3f349c38fe6b25c3a2dede3',0,'records-9edca47d7d78',0,1,'s1','s4','spatial','6ef3d02fdadb3ba4ef0e46a9809ed57e844e247d80ff4d1a2bf6bfba7981d024','1f37a6f34fa84fffa2244f59b4d0e921',10,X'fa25f27df04b50cd23c8bd673e748ba9a5b2d84d7d58011771c804597441fc58',X'fa25f27df04b50cd23c8bd673e748ba9a5b2d84d7d58011771c804597441fc58','verbatim','',0);
INSERT INTO deliveries VALUES('d010db45f3f349c38fe6b25c3a2dede3',1,'records-9edca47d7d78',0,1,'s2','s4','spatial','081ae45eecce9e80c46a3d47beb9d61197b967a4e99d20e6fe158e558ae7a92c','a534b5b291c94019ace73d8f92d46b8b',10,X'fa25f27df04b50cd23c8bd673e748ba9a5b2d84d7d58011771c804597441fc58',X'fa25f27df04b50cd23c8bd673e748ba9a5b2d84d7d58011771c804597441fc58','verbatim','',0);
INSERT INTO deliveries VALUES('d010db45f3f349c38fe6b25c3a2dede3',2,'records-9edca47d7d78',0,1,'s3','s4','spatial','ab8aefeab5b77364d4f944ab9952ce9167b4bb0e49eec5605de2220366e50834','75a5a9a3e40f4aa3a73bce956de33310',10,X'fa25f27df04b50cd23c8bd673e748ba9a5b2d84d7d58011771c804597441fc58',X'fa25f27df04b50cd23c8bd673e748ba9a5b2d84d7d58011771c804597441fc58','verbatim','',0);
INSERT INTO deliveries VALUES('d11d61f1640c451f8c4be227c3f2eb9f',0,'records-9edca47d7d78',0,1,'s1','judge','spatial','6ef3d02fdadb3ba4ef0e46a9809ed57e844e247d80ff4d1a2bf6bfba7981d024','1f37a6f34fa84fffa2244f59b4d0e921',10,X'fa25f27df04b50cd23c8bd673e748ba9a5b2d84d7d58011771c804597441fc58',X'fa25f27df04b50cd23c8bd673e748ba9a5b2d84d7d58011771c804597441fc58','verbatim','',0);
INSERT INTO deliveries VALUES('d11d61f1640c451f8c4be227c3f2eb9f',1,'records-9edca47d7d78',0,1,'s2','judge','spatial','081ae45eecce9e80c46a3d47beb9d61197b967a4e99d20e6fe158e558ae7a92c','a534b5b291c94019ace73d8f92d46b8b',10,X'fa25f27df04b50cd23c8bd673e748ba9a5b2d84d7d58011771c804597441fc58',X'fa25f27df04b50cd23c8bd673e748ba9a5b2d84d7d58011771c804597441fc58','verbatim','',0);
INSERT INTO deliveries VALUES('d11d61f1640c451f8c4be227c3f2eb9f',2,'records-9edca47d7d78',0,1,'s3','judge','spatial','ab8aefeab5b77364d4f944ab9952ce9167b4bb0e49eec5605de2220366e50834','75a5a9a3e40f4aa3a73bce956de33310',10,X'fa25f27df04b50cd23c8bd673e748ba9a5b2d84d7d58011771c804597441fc58',X'fa25f27df04b50cd23c8bd673e748ba9a5b2d84d7d58011771c804597441fc58','verbatim','',0);
INSERT INTO deliveries VALUES('d11d61f1640c451f8c4be227c3f2eb9f',3,'records-9edca47d7d78',0,1,'s4','judge','spatial','bab0e2105cdebd9850f25767f9d8d3b8de6c7578cac61d020141d584ff6bf277','d010db45f3f349c38fe6b25c3a2dede3',10,X'fa25f27df04b50cd23c8bd673e748ba9a5b2d84d7d58011771c804597441fc58',X'fa25f27df04b50cd23c8bd673e748ba9a5b2d84d7d58011771c804597441fc58','verbatim','',0);
INSERT INTO deliveries VALUES('120b6a6432ef4a13a12b3a3dd2acbf7e',0,'records-fb598dae0445',0,1,'s1','s4','spatial','57218cb57ae5dcf5ecdc4a9d8b02545022e8d8d608e4df310f182a5daea43116','e43286a1a91f426f8283a99d4d569eea',10,X'b4287c24e53eb5256aab329507378709224a87910a87a454296d3e07e54ec0d7',X'b4287c24e53eb5256aab329507378709224a87910a87a454296d3e07e54ec0d7','verbatim','',0);
INSERT INTO deliveries VALUES('120b6a6432ef4a13a12b3a3dd2acbf7e',1,'records-fb598dae0445',0,1,'s2','s4','spatial','bc15f97e146d04a556b546aa4f2d574835bb653c320f6589e58e1a9e79918d43','826067e3d6d44a14b0f4a2b38ab28fb5',10,X'b4287c24e53eb5256aab329507378709224a87910a87a454296d3e07e54ec0d7',X'b4287c24e53eb5256aab329507378709224a87910a87a454296d3e07e54ec0d7','verbatim','',0);
INSERT INTO deliveries VALUES('120b6a6432ef4a13a12b3a3dd2acbf7e',2,'records-fb598dae0445',0,1,'s3','s4','spatial','888032e8d70b22dc8bb7a5e93fc6da62dd5adb93f08669799594d2644c6bd9fa','26d35b359bd14e5ca12e9adfe2b2c5ca',10,X'b4287c24e53eb5256aab329507378709224a87910a87a454296d3e07e54ec0d7',X'b4287c24e53eb5256aab329507378709224a87910a87a454296d3e07e54ec0d7','verbatim','',0);
INSERT INTO deliveries VALUES('26d35b359bd14e5ca12e9adfe2b2c5ca',0,'records-fb598dae0445',0,1,'s1','s3','spatial','57218cb57ae5dcf5ecdc4a9d8b02545022e8d8d608e4df310f182a5daea43116','e43286a1a91f426f8283a99d4d569eea',10,X'b4287c24e53eb5256aab329507378709224a87910a87a454296d3e07e54ec0d7',X'b4287c24e53eb5256aab329507378709224a87910a87a454296d3e07e54ec0d7','verbatim','',0);
INSERT INTO deliveries VALUES('26d35b359bd14e5ca12e9adfe2b2c5ca',1,'records-fb598dae0445',0,1,'s2','s3','spatial','bc15f97e146d04a556b546aa4f2d574835bb653c320f6589e58e1a9e79918d43','826067e3d6d44a14b0f4a2b38ab28fb5',10,X'b4287c24e53eb5256aab329507378709224a87910a87a454296d3e07e54ec0d7',X'b4287c24e53eb5256aab329507378709224a87910a87a454296d3e07e54ec0d7','verbatim','',0);
INSERT INTO deliveries VALUES('4d877ab4a4e4447296a44953aee0b8d4',0,'records-fb598dae0445',0,1,'s1','judge','spatial','57218cb57ae5dcf5ecdc4a9d8b02545022e8d8d608e4df310f182a5daea43116','e43286a1a91f426f8283a99d4d569eea',10,X'b4287c24e53eb5256aab329507378709224a87910a87a454296d3e07e54ec0d7',X'b4287c24e53eb5256aab329507378709224a87910a87a454296d3e07e54ec0d7','verbatim','',0);
INSERT INTO deliveries VALUES('4d877ab4a4e4447296a44953aee0b8d4',1,'records-fb598dae0445',0,1,'s2','judge','spatial','bc15f97e146d04a556b546aa4f2d574835bb653c320f6589e58e1a9e79918d43','826067e3d6d44a14b0f4a2b38ab28fb5',10,X'b4287c24e53eb5256aab329507378709224a87910a87a454296d3e07e54ec0d7',X'b4287c24e53eb5256aab329507378709224a87910a87a454296d3e07e54ec0d7','verbatim','',0);
INSERT INTO deliveries VALUES('4d877ab4a4e4447296a44953aee0b8d4',2,'records-fb598dae0445',0,1,'s3','judge','spatial','888032e8d70b22dc8bb7a5e93fc6da62dd5adb93f08669799594d2644c6bd9fa','26d35b359bd14e5ca12e9adfe2b2c5ca',10,X'b4287c24e53eb5256aab329507378709224a87910a87a454296d3e07e54ec0d7',X'b4287c24e53eb5256aab329507378709224a87910a87a454296d3e07e54ec0d7','verbatim','',0);
INSERT INTO deliveries VALUES('4d877ab4a4e4447296a44953aee0b8d4',3,'records-fb598dae0445',0,1,'s4','judge','spatial','e9a83c1c0236b1449dc7958c42da177cb5f20c26bef5c8802f5a30113bd60adb','120b6a6432ef4a13a12b3a3dd2acbf7e',10,X'b4287c24e53eb5256aab329507378709224a87910a87a454296d3e07e54ec0d7',X'b4287c24e53eb5256aab329507378709224a87910a87a454296d3e07e54ec0d7','verbatim','',0);
INSERT INTO deliveries VALUES('826067e3d6d44a14b0f4a2b38ab28fb5',0,'records-fb598dae0445',0,1,'s1','s2','spatial','57218cb57ae5dcf5ecdc4a9d8b02545022e8d8d608e4df310f182a5daea43116','e43286a1a91f426f8283a99d4d569eea',10,X'b4287c24e53eb5256aab329507378709224a87910a87a454296d3e07e54ec0d7',X'b4287c24e53eb5256aab329507378709224a87910a87a454296d3e07e54ec0d7','verbatim','',0);
CREATE TABLE episodes (
            n INTEGER PRIMARY KEY,
            item TEXT NOT NULL,
            sample INTEGER NOT NULL,
            status TEXT NOT NULL,
            answer BLOB,
            score REAL,
            extracted TEXT,
            failure TEXT,
            wall_s REAL,
            finished_at REAL,
            topology TEXT,
            failures INTEGER NOT NULL);
INSERT INTO episodes VALUES(1,'records-9edca47d7d78',0,'ok',X'fa25f27df04b50cd23c8bd673e748ba9a5b2d84d7d58011771c804597441fc58',0.0,'warsaw',NULL,0.10371492900048906449,1795865677.1463530064,NULL,0);
INSERT INTO episodes VALUES(2,'records-fb598dae0445',0,'ok',X'b4287c24e53eb5256aab329507378709224a87910a87a454296d3e07e54ec0d7',0.0,'berlin',NULL,0.10603400199943280313,1795865677.1504101752,NULL,0);
INSERT INTO episodes VALUES(3,'records-0890edda3793',0,'ok',X'1254e0e63ff1ca6b61613853270eec2c7b34303ee5755fed194d8a6ebc2fd0c9',0.0,'navy',NULL,0.10612639099963416811,1795865677.1505937576,NULL,0);
CREATE INDEX calls_by_turn ON calls (item, sample, round, agent);
CREATE INDEX episodes_by_item ON episodes (item, sample);
COMMIT;
